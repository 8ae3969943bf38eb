from pathlib import Path

import pytest
from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from torch import nn
from toy_parts import TwoParts, train_parts
from two_ranks import fork_two_ranks

from mmsam.errors import ConfigError

CHECK = dict(type='FrozenCheckHook')


class FrozenEncoder(TwoParts):
    """The encoder has a layer in front of it and does not train; its mode is the model's."""

    def __init__(self, layer: nn.Module, stays_in_eval: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(layer, nn.Linear(3, 8)).requires_grad_(False)
        self.stays_in_eval = stays_in_eval

    def features_of(self, images):
        return self.encoder(images.repeat(2, 1))[:1]  # BatchNorm wants two

    def train(self, mode: bool = True):
        super().train(mode)
        if self.stays_in_eval:
            self.encoder.eval()
        return self


class Overwrite(Hook):
    """Writes to a frozen weight in an iteration, counted from 1."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            runner.model.encoder[1].weight.data[0, 0] += 1e-6


@pytest.mark.parametrize('layer', [nn.BatchNorm1d(3), nn.Dropout(0.5), DropPath(0.5)], ids=str)
def test_a_frozen_part_in_eval_mode_is_right(tmp_path, layer):
    train_parts(tmp_path, FrozenEncoder(layer, stays_in_eval=True), CHECK)


@pytest.mark.trap(10)
def test_statistics_of_batch_norm_are_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r'3 did by iteration 1: encoder.0.running_mean, encoder.0.running_var, encoder.0.num',
    ) as end:
        train_parts(tmp_path, FrozenEncoder(nn.BatchNorm1d(3)), CHECK)
    assert end.value.exit_code == 2
    assert not list(tmp_path.glob('iter_*.pth'))


@pytest.mark.parametrize('layer', [nn.Dropout(0.5), DropPath(0.5)], ids=str)
@pytest.mark.trap(10)
def test_what_drops_at_random_is_named(tmp_path, layer):
    with pytest.raises(ConfigError, match='in eval mode, but encoder.0 drops at random'):
        train_parts(tmp_path, FrozenEncoder(layer), CHECK)


def test_what_drops_nothing_may_be_in_train_mode(tmp_path):
    train_parts(tmp_path, FrozenEncoder(nn.Dropout(0.0)), CHECK)


def test_a_part_that_trains_may_change_and_drop(tmp_path):
    model = FrozenEncoder(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)))
    model.encoder[1].requires_grad_(True)
    model.encoder[0][0].bias.requires_grad_(False)
    train_parts(tmp_path, model, CHECK)


def test_a_frozen_weight_of_a_part_that_trains(tmp_path):
    model = FrozenEncoder(nn.Identity())
    model.encoder[1].bias.requires_grad_(True)
    with pytest.raises(ConfigError, match='1 did by iteration 1: encoder.1.weight'):
        train_parts(tmp_path, model, CHECK, Overwrite(1))


@pytest.mark.parametrize(
    ('changed_in', 'found'), [(1, 'iteration 2'), (2, 'iteration 2'), (3, 'the end')]
)
def test_after_the_first_update_and_at_the_end(tmp_path, changed_in, found):
    """The first update is that of the second iteration."""
    model = FrozenEncoder(nn.Identity())
    with pytest.raises(ConfigError, match=f'1 did by {found}.*: encoder.1.weight'):
        train_parts(
            tmp_path, model, CHECK, Overwrite(changed_in), objects=(1,) * 4, accumulative_counts=2
        )


def test_a_resumed_run_is_checked_again(tmp_path):
    model = FrozenEncoder(nn.Identity())
    train_parts(tmp_path, model, CHECK)
    with pytest.raises(ConfigError, match='1 did by iteration 4: encoder.1.weight'):
        train_parts(tmp_path, model, CHECK, Overwrite(4), objects=(1,) * 5, resume=True)


def check_on_a_rank(rank: int, folder: Path) -> None:
    # its statistics move on rank 1 only
    model = FrozenEncoder(nn.BatchNorm1d(3), stays_in_eval=rank == 0)
    try:
        train_parts(folder / 'run', model, CHECK)
    except ConfigError as error:
        (folder / f'rank_{rank}').write_text(str(error))


def test_all_ranks_end_with_the_error_of_one(tmp_path):
    fork_two_ranks(check_on_a_rank, tmp_path)
    words = {(tmp_path / f'rank_{rank}').read_text() for rank in range(2)}
    assert len(words) == 1 and 'encoder.0.running_mean' in words.pop()
