import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as mask_utils
from torch.utils.data import Dataset

from mmsam.errors import ConfigError, DataError
from mmsam.rgb_image import ImageReading
from mmsam.structures import SAMDataSample
from mmsam.visualization import PromptedPictureHook, draw_prediction, prompted_picture_hook

SIZE = (40, 30)


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, np.uint8, order='F')
    mask[y1:y2, x1:x2] = 1
    return mask_utils.encode(mask)


class Pages(Dataset):
    """Pages named like their siblings in other folders, each with one object."""

    def __init__(self, root, count):
        self.paths = []
        for index in range(count):
            path = root / f'folder{index}' / 'page.png'
            path.parent.mkdir(parents=True)
            Image.new('RGB', SIZE[::-1], (40 * index, 0, 0)).save(path)
            self.paths.append(path)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        sample = SAMDataSample(
            metainfo=dict(
                img_path=str(self.paths[index]),
                img_id=index,
                ori_shape=SIZE,
                img_shape=(80, 60),
            )
        )
        sample.prompts = InstanceData(boxes=torch.tensor([[10.0, 20.0, 40.0, 60.0]]))
        sample.gt_instances = InstanceData(rles=[rectangle(5, 10, 20, 30)])
        return dict(inputs=torch.zeros(3, 80, 60), data_samples=sample)


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples, mode):
        if mode == 'loss':
            return dict(loss=self.weight**2)
        for sample in data_samples:
            sample.pred_instances = InstanceData(
                rles=[rectangle(5, 10, 15, 30)], iou_predictions=torch.ones(1)
            )
        return data_samples


class Nothing(BaseMetric):
    default_prefix = 'nothing'

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {}


class ValidateFirst(Hook):
    def before_train(self, runner):
        runner.val_loop.run()


def make_runner(tmp_path, pages, hooks):
    loader = dict(
        dataset=pages,
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    return Runner(
        model=Toy(),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=2, val_interval=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[Nothing()],
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=[Nothing()],
        custom_hooks=hooks,
        default_scope='mmsam',
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*.png'))


def test_validations_before_and_in_training_draw_the_first_images(tmp_path):
    pages = Pages(tmp_path, 4)
    hook = PromptedPictureHook(max_pictures=3)
    make_runner(tmp_path, pages, [ValidateFirst(), hook]).train()
    names = ['0000_page.png', '0001_page.png', '0002_page.png']
    pictures = tmp_path / 'work' / 'pictures'
    assert written(pictures) == [f'iter_{step:06d}/{name}' for step in (0, 2) for name in names]
    expected = draw_prediction(
        np.full((*SIZE, 3), (80, 0, 0), np.uint8),
        np.array([[5.0, 10.0, 20.0, 30.0]]),  # the prompt, from 80 x 60 back to 40 x 30
        [rectangle(5, 10, 20, 30)],
        [rectangle(5, 10, 15, 30)],
    )
    with Image.open(pictures / 'iter_000002' / '0002_page.png') as picture:
        assert (np.array(picture) == expected).all()


def test_points_that_the_model_was_given_are_drawn(tmp_path):
    (sample,) = Toy()(None, [Pages(tmp_path, 1)[0]['data_samples']], 'predict')
    sample.pred_instances.prompt_points = torch.tensor([[24.0, 40.0]])
    hook = PromptedPictureHook(show_dir=str(tmp_path / 'shown'))
    hook.after_test_iter(
        make_runner(tmp_path / 'r', Pages(tmp_path / 'p', 1), []), 0, None, [sample]
    )
    expected = draw_prediction(
        np.zeros((*SIZE, 3), np.uint8),
        np.zeros((1, 4)),
        [rectangle(5, 10, 20, 30)],
        [rectangle(5, 10, 15, 30)],
        np.array([[11.75, 19.75]]),  # from 80 x 60 back to 40 x 30
    )
    with Image.open(tmp_path / 'shown' / '0000_page.png') as picture:
        assert (np.array(picture) == expected).all()


def test_a_test_draws_all_images_into_show_dir_twice_the_same(tmp_path):
    pages = Pages(tmp_path, 3)
    hook = PromptedPictureHook(max_pictures=None, show_dir=str(tmp_path / 'shown'))
    runner = make_runner(tmp_path, pages, [hook])
    runner.test()
    names = ['0000_page.png', '0001_page.png', '0002_page.png']
    assert written(tmp_path / 'shown') == names
    runner.test()
    assert written(tmp_path / 'shown') == names
    assert not (tmp_path / 'work' / 'pictures').exists()


def test_a_test_without_show_dir_draws_nothing(tmp_path):
    make_runner(tmp_path, Pages(tmp_path, 1), [PromptedPictureHook()]).test()
    assert written(tmp_path / 'work') == []


@pytest.mark.parametrize(('limit', 'expected'), [(3, [[0, 2], [1]]), (None, [[0, 2, 4], [1, 3]])])
def test_each_rank_draws_its_own_images(tmp_path, monkeypatch, limit, expected):
    pages = Pages(tmp_path, 5)
    for rank, places in enumerate(expected):
        monkeypatch.setattr(prompted_picture_hook, 'get_dist_info', lambda rank=rank: (rank, 2))
        folder = tmp_path / f'rank{rank}'
        runner = make_runner(tmp_path, pages, [])
        hook = PromptedPictureHook(max_pictures=limit, show_dir=str(folder))
        hook.before_test_epoch(runner)
        # What DefaultSampler deals to this rank: rank 1 gets image 0 again to fill up.
        order = [0, 2, 4] if rank == 0 else [1, 3, 0]
        samples = Toy()(None, [pages[index]['data_samples'] for index in order], 'predict')
        hook.after_test_iter(runner, 0, outputs=samples[:2])
        hook.after_test_iter(runner, 1, outputs=samples[2:])
        assert written(folder) == [f'{place:04d}_page.png' for place in places]


@pytest.fixture
def runner(tmp_path):
    runner = make_runner(
        tmp_path, Pages(tmp_path, 1), [PromptedPictureHook(show_dir=str(tmp_path / 'shown'))]
    )
    return runner


def test_exif_rotation_is_ignored(tmp_path, runner):
    path = tmp_path / 'folder0' / 'page.png'
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    Image.new('RGBA', SIZE[::-1], (0, 9, 0, 0)).save(path, exif=exif)
    runner.test()
    with Image.open(tmp_path / 'shown' / '0000_page.png') as picture:
        assert picture.getpixel((12, 34)) == (0, 9, 0)


def test_a_deep_image_is_read_as_the_model_got_it(tmp_path, runner):
    path = tmp_path / 'folder0' / 'page.png'
    Image.fromarray(np.full(SIZE, 1000, np.uint16)).save(path)
    with pytest.raises(DataError, match='uint16'):
        runner.test()
    sample = Pages(tmp_path / 'deep', 1)[0]['data_samples']
    reading = ImageReading(value_range=(0, 2550))
    sample.set_metainfo(dict(img_path=str(path), image_reading=reading))
    hook = PromptedPictureHook(show_dir=str(tmp_path / 'deep_shown'))
    hook.after_test_iter(runner, 0, outputs=Toy()(None, [sample], 'predict'))
    with Image.open(tmp_path / 'deep_shown' / '0000_page.png') as picture:
        assert picture.getpixel((12, 34)) == (100, 100, 100)


def test_an_image_of_another_size_is_refused(tmp_path, runner):
    path = tmp_path / 'folder0' / 'page.png'
    Image.new('RGB', (31, 40)).save(path)
    with pytest.raises(DataError, match=r'\(40, 30\).*\(40, 31\).*folder0'):
        runner.test()


def test_an_image_that_cannot_be_read_is_named(tmp_path, runner):
    path = tmp_path / 'folder0' / 'page.png'
    path.write_bytes(b'no image')
    with pytest.raises(DataError, match='folder0'):
        runner.test()


def test_outputs_without_masks_are_refused(runner):
    hook = PromptedPictureHook(show_dir='unused')
    with pytest.raises(ConfigError, match='pred_instances.rles'):
        hook.after_test_iter(runner, 0, outputs=[SAMDataSample()])


def test_a_negative_number_of_pictures_is_refused():
    with pytest.raises(ConfigError, match='max_pictures'):
        PromptedPictureHook(max_pictures=-1)
