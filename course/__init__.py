r"""Material for a class on graph learning with :obj:`motor_geo`: assignments, an autograder
(:mod:`course.grade`) and slides (:mod:`course.slides`).
"""
