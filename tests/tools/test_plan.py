from tiny_run import ROOT, refused, run_here

from tools import plan

TINY = ROOT / 'configs' / 'sam_tiny_stamp.py'
SMALL = [
    *(
        '--options',
        'model.image_encoder.arch.depth=2',
        'model.image_encoder.arch.global_attn_indexes=[1]',
    ),
]


def test_it_prints_the_plan(capsys):
    run_here(plan, TINY, '--objects', 2, '--memory', 4, *SMALL)
    text = capsys.readouterr().out
    assert 'A step trains on 8 images of 256 px with 2 objects each (--objects).' in text
    assert '| as configured' in text and '4 GiB' in text and '80 GiB' not in text


def test_a_model_of_mmseg_is_refused(capsys):
    config = ROOT / 'configs' / 'mmseg_fcn_sam_stamp.py'
    code, line = refused(capsys, plan, config, '--objects', 2)
    assert code == 2
    assert line.startswith('ConfigError: ')
    assert line.endswith('expected a config whose model is a SAMSegmentor, got EncoderDecoder.')


def test_wrong_numbers_are_refused(capsys):
    for option in ('--objects', '--memory'):
        code, line = refused(capsys, plan, TINY, option, 0)
        assert code == 2 and line.startswith(f'ConfigError: {option}: expected')
