r"""The autograder. Tests run in one process, the submission in another: they exchange JSON, so
that a submission can neither change a test nor read what it expects.

=================== ==========================================================================
``catalog``         finds assignments and their tests
``check``           comparisons with messages for students, for use in tests
``student``         the proxy through which tests call a submission
``child``           the process of the submission
``contract``        the contract of backbones, run in the process of the submission
``wire``            values as JSON
``plugin``          the plugin of pytest that collects points
``worker``          runs pytest on a list of submissions
``results``         results of a submission, as JSON and as text
=================== ==========================================================================
"""
