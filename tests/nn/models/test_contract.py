r"""What every backbone must keep; being listed in `MODELS` is enough."""

from motor_geo.nn.models import MODELS
from motor_geo.testing import BackboneContract

#: These join old items to new ones.
JOINS_ITEMS = ('LATTICE', 'MICRO', 'LGMRec')
#: These have no negative items and learn slowly.
EPOCHS = {'SelfCF': 200, 'BM3': 400}  # BM3 takes much longer on some versions of PyTorch.


class Contract(BackboneContract):
    sections = ('https://', '.. math::', 'ID-free:', 'Args:', 'Shapes:')


for name, model in MODELS.items():
    members = {'backbone': model, 'joins_items': name in JOINS_ITEMS, '__module__': __name__}
    members['epochs'] = EPOCHS.get(name, 20)  # The others need one to five.
    globals()[f'Test{name}'] = type(f'Test{name}', (Contract,), members)
