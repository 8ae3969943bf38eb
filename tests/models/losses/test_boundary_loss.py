import torch

from mmsam.models.losses import boundary_band, boundary_loss


def band_of(rows: list[str], inside: list[str] | None = None) -> list[str]:
    """The band of a mask drawn with # and ., as such a drawing; ``inside`` likewise."""
    target = torch.tensor([[[[float(cell == '#') for cell in row] for row in rows]]])
    drawn = inside or ['#' * len(rows[0])] * len(rows)
    weight = torch.tensor([[[[float(cell == '#') for cell in row] for row in drawn]]])
    band = boundary_band(target, weight=weight)[0, 0]
    return [''.join('#' if cell else '.' for cell in row) for row in band.tolist()]


def test_band_is_one_cell_on_both_sides_of_the_outline():
    rows = ['.......', '.####..', '.####..', '.####..', '.####..', '.......', '.......']
    assert band_of(rows) == [
        '######.',
        '######.',
        '##..##.',
        '##..##.',
        '######.',
        '######.',
        '.......',
    ]


def test_the_image_border_is_no_outline_and_padding_has_no_band():
    inside = ['####'] * 3 + ['....']
    for padding in ('####', '....'):
        assert band_of(['##..'] * 3 + [padding], inside) == ['.##.'] * 3 + ['....']
    assert band_of(['####'] * 4) == ['....'] * 4
    assert band_of(['....'] * 4) == ['....'] * 4


def test_a_share_between_0_and_1_is_outline():
    target = torch.zeros(1, 1, 5, 5)
    target[..., 0, 0] = 0.25  # an object smaller than a cell
    band = boundary_band(target, weight=torch.ones(1, 1, 5, 5))[0, 0]
    assert band[:2, :2].eq(1).all() and band.sum() == 4


def test_cross_entropy_of_the_band_only():
    logits = torch.tensor([0.0, 5.0, -1.0, 2.0], requires_grad=True)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0])
    band = torch.tensor([1.0, 0.0, 1.0, 1.0])
    weight = torch.tensor([1.0, 1.0, 0.5, 0.0])
    loss = boundary_loss(logits, target, weight=weight, band=band)
    log2, softplus = torch.log(torch.tensor(2.0)), torch.log1p(torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(loss, (log2 + 0.5 * softplus) / 1.5)
    loss.backward()
    assert (logits.grad != 0).tolist() == [True, False, True, False]


def test_no_band_gives_zero_with_a_gradient_of_zero():
    logits = torch.tensor([0.0, 5.0], requires_grad=True)
    loss = boundary_loss(logits, torch.zeros(2), weight=torch.ones(2), band=torch.zeros(2))
    loss.backward()
    assert loss == 0 and logits.grad.tolist() == [0, 0]


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    logits, target, weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    target, weight = target.sigmoid(), weight.sigmoid()
    band = torch.tensor([1.0, 0, 1, 1, 0, 1])
    assert torch.autograd.gradcheck(
        lambda x: boundary_loss(x, target, weight=weight, band=band), logits.requires_grad_()
    )
