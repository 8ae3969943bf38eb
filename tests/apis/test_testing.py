import argparse

import pytest
from mmengine.config import Config

from mmsam.apis import add_prompt_arguments, apply_prompt_arguments
from mmsam.errors import ConfigError


def config(model='SAMSegmentor', dataset='BoxPromptDataset') -> Config:
    return Config(
        dict(
            model=dict(type=model, test_cfg=dict(num_clicks=2, box_noise=(0.5,))),
            test_dataloader=dict(dataset=dict(type=dataset)),
            test_evaluator=dict(type='PromptedMaskMetric'),
        )
    )


def applied(to: Config, *arguments: str) -> Config:
    parser = argparse.ArgumentParser()
    parser.add_argument('--show-dir')
    add_prompt_arguments(parser)
    apply_prompt_arguments(to, parser.parse_args(arguments))
    return to


def test_without_arguments_the_config_chooses():
    assert applied(config()).to_dict() == config().to_dict()


def test_arguments_go_before_the_config():
    found = applied(config('mmsam.SAMSegmentor'), '--prompt', 'point', '--box-noise', '0.05', '0.1')
    assert found.model.test_cfg == dict(prompt='point', num_clicks=2, box_noise=(0.05, 0.1))
    without = config()
    without.model.pop('test_cfg')
    assert applied(without, '--clicks', '0').model.test_cfg == dict(num_clicks=0)


@pytest.mark.parametrize('option', [['--prompt', 'box'], ['--clicks', '3'], ['--box-noise', '0.1']])
def test_a_model_without_prompts(option):
    with pytest.raises(ConfigError, match=f'{option[0]}: .* SAMSegmentor .*, got EncoderDecoder'):
        applied(config('EncoderDecoder'), *option)


def test_a_config_without_a_model():
    without = config()
    without.pop('model')
    with pytest.raises(ConfigError, match='--clicks: expected a SAMSegmentor as model, got None.'):
        applied(without, '--clicks', '3')


def test_boxes_of_a_detector():
    found = applied(config(), '--boxes', 'results.json')
    assert found.test_dataloader.dataset == dict(
        type='BoxPromptDataset', prompt_boxes='results.json', empty_images='keep'
    )
    assert found.test_evaluator == dict(type='mmsam.COCOMaskAP')
    assert found.model.test_cfg == {}  # no clicks, which need the object of each box
    other = applied(config('EncoderDecoder'), '--boxes', 'results.json')
    assert other.model.test_cfg == config().model.test_cfg
    with pytest.raises(ConfigError, match='BoxPromptDataset as test_dataloader.dataset, got Other'):
        applied(config(dataset='Other'), '--boxes', 'results.json')
    with pytest.raises(ConfigError, match='got --clicks and --show-dir'):
        applied(config(), '--boxes', 'results.json', '--clicks', '3', '--show-dir', 'pictures')
