r"""Hidden tests of assignment 2."""

import math

import torch

from course.grading import check
from course.grading.check import points


def edges(num_users, num_items, share, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_users, num_items, generator=generator) < share
    mask[:, 0] = False
    return mask.nonzero().t(), mask


@points(2)
def test_no_positive(student):
    r"""sample_negatives: no item of the user."""
    train, mask = edges(40, 30, 0.5, seed=1)
    for seed in range(3):
        out = check.tensor('sample_negatives', student.draw(train, 30, seed), [train.size(1)])
        check.that(int(out.min()) >= 0 and int(out.max()) < 30, 'An item is out of range.')
        check.that(
            not mask[train[0], out].any(),
            'Some negatives are other positive items of the same user. Compare a draw with all '
            'items of the user, not only with that of the edge.',
        )


@points(1)
def test_uniform(student):
    r"""sample_negatives: uniform over the other items."""
    train = torch.stack([torch.zeros(6000, dtype=torch.long), torch.arange(6000) % 4])
    out = check.tensor('sample_negatives', student.draw(train, 10, 0), [6000])
    count = out.bincount(minlength=10)[4:].double()
    check.that(
        count.min() > 850 and count.max() < 1150,
        'Some negatives are drawn more often than others. How do you replace a draw that is '
        'not allowed?',
    )


@points(1)
def test_generator(student):
    r"""sample_negatives: the generator decides."""
    train, _ = edges(40, 30, 0.3, seed=2)
    first, again, other = (student.draw(train, 30, seed) for seed in (0, 0, 1))
    first = check.tensor('sample_negatives', first, [train.size(1)])
    check.that(torch.equal(first, again), 'The same generator must give the same negatives.')
    check.that(not torch.equal(first, other), 'Another seed must give other negatives.')


@points(2)
def test_loss_is_stable(student):
    r"""bpr_loss: large differences."""
    pos, neg = torch.tensor([1000.0, 0.0, 3.0]), torch.tensor([0.0, 1000.0, 1.0])
    expected = (1000 + math.log1p(math.exp(-2))) / 3
    hint = 'The exponential of 1,000 is infinite. Which function of PyTorch is the logarithm '
    hint += 'and the sigmoid in one?'
    low = torch.nn.functional.softplus(pos - neg).mean()
    typical = {'The loss falls when negatives score higher. Check the sign.': low}
    check.close('bpr_loss', student.bpr_loss(pos, neg), expected, hint, typical)


@points(3)
def test_top_k(student):
    r"""top_k: negative scores."""
    train, mask = edges(20, 30, 0.3, seed=3)
    score = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)) - 2
    out = check.tensor('top_k', student.top_k(score, train, 5), [20, 5])
    masked = score.masked_fill(mask, -math.inf)
    expected = masked.topk(5).indices
    if torch.equal(out, expected):
        return
    in_train = mask.gather(1, out.long()).any()
    zero = torch.equal(out, score.masked_fill(mask, 0).topk(5).indices)
    check.that(
        not zero,
        'Training items are in the lists. A score of 0 does not exclude an item if others are '
        'negative.',
    )
    check.that(not in_train, 'Training items of the user are in the lists.')
    everybody = torch.zeros(30, dtype=torch.bool)
    everybody[train[1]] = True
    if not everybody.all():
        everybody = score.masked_fill(everybody, -math.inf).topk(5).indices
        check.that(not torch.equal(out, everybody), 'You exclude items of other users.')
    check.fail('The lists are wrong. Are they sorted, and do they skip allowed items?')


@points(2)
def test_recall_of_many(student):
    r"""recall: more held-out items than ranks."""
    out = student.recall([0, 1], [1, 2, 3, 4, 5])
    truncated = 'The denominator is the number of held-out items, even if the list is shorter.'
    check.close('recall', out, 0.2, truncated)
    check.close('recall', student.recall([5, 6], [1, 2]), 0, 'Nothing is found here.')


@points(2)
def test_ndcg(student):
    r"""ndcg: fewer held-out items than ranks, and more."""
    gain = [1 / math.log2(k + 1) for k in range(1, 6)]
    out = student.ndcg([9, 3, 8, 4, 7], [3, 4])
    full = 'The best list has as many hits as there are held-out items, at most. Your '
    full += 'denominator has a term for every rank.'
    found = gain[1] + gain[3]
    hint = 'Compute numerator and denominator by hand for K = 2.'
    typical = {full: found / sum(gain), 'The denominator is missing.': found}
    check.close('ndcg', out, found / (gain[0] + gain[1]), hint, typical)
    check.close('ndcg', student.ndcg([1, 2], [1, 2, 3]), 1, 'This list is the best possible one.')


@points(2)
def test_evaluate(student):
    r"""evaluate: users without held-out items, and items held out."""
    train, mask = edges(20, 30, 0.3, seed=4)
    generator = torch.Generator().manual_seed(5)
    score = torch.randn(20, 30, generator=generator)
    chosen = (torch.rand(20, 30, generator=generator) < 0.1) & ~mask
    chosen[::4] = False
    held_out = chosen.nonzero().t()
    ranked = score.masked_fill(mask, -math.inf).topk(8).indices
    hits = chosen.gather(1, ranked).sum(1).double()
    count = chosen.sum(1)
    some = count > 0
    expected = (hits[some] / count[some]).mean()
    out = student.evaluate(score, train, held_out, 8)
    check.that(isinstance(out, dict) and set(out) == {'recall', 'ndcg'}, 'Return a dictionary.')
    typical = {
        'The mean contains users without held-out items.': (hits / count.clamp(min=1)).mean(),
        'No held-out item is found. Are held-out items still candidates?': 0.0,
        'You sum over users before you divide.': hits.sum() / count.sum(),
    }
    hint = 'Check `top_k` and `recall` first. Which users count?'
    check.close('evaluate', out['recall'], expected, hint, typical)
