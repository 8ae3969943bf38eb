import json

import annotated_scenes as scenes
import pytest

from mmsam.datasets import BoxPromptDataset
from mmsam.datasets.readers.label_studio import find_image
from mmsam.errors import DataError

pytestmark = pytest.mark.usefixtures('quick_data_sets')


def edited(root, change, form='label_studio_polygons'):
    options = scenes.options(root, form)
    path = root / 'export.json'
    tasks = json.loads(path.read_text())
    change(tasks)
    path.write_text(json.dumps(tasks))
    return options


def first(tasks):
    return tasks[0]['annotations'][0]['result'][0]


def result(**changes):
    return lambda tasks: first(tasks).update(changes)


def value(**changes):
    return lambda tasks: first(tasks)['value'].update(changes)


def task(**changes):
    return lambda tasks: tasks[0].update(changes)


def shape(kind, **numbers):
    return result(type=f'{kind}labels', value={f'{kind}labels': ['cat'], **numbers})


BOX = dict(x=25, y=50, width=25, height=10)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (value(points=[['nan', 1], [2, 3], [4, 5]]), 'Result r0 of task 7 in .*not finite'),
        (value(points=[[1e9, 1], [2, 3], [4, 5]]), 'Result r0 of task 7 in .*far outside'),
        (value(points=[[1, 2, 3]]), r"'points' must be a list of \[x, y\] pairs"),
        (value(polygonlabels=['cat', 'dog']), r"result r0 has the labels \['cat', 'dog'\], expect"),
        (result(original_width=None), "Task 7 in .* needs 'original_height' and 'original_width'"),
        (result(original_width=90), 'results for images of 2 sizes'),
        (result(image_rotation=90), "'image_rotation' 90, which is not supported"),
        (result(item_index=1), "'item_index' 1, which is not supported"),
        (result(value=None), "Result r0 of task 7 in .* has no object 'value'"),
        (shape('rectangle', **BOX | dict(x=None)), 'not finite'),
        (shape('rectangle', **BOX | dict(x='a')), 'no list of numbers'),
        (shape('rectangle', **BOX, rotation='a'), "'rotation' 'a', expected degrees"),
        (shape('rectangle', **BOX, rotation=10**400), "Result .* in .*'rotation' 10{400}, exp"),
        (shape('ellipse', x=10, y=10, radiusX=1e300, radiusY=1), 'far outside'),
        (shape('ellipse', x=10, y=10, radiusX=-5, radiusY=-5), r'expected >= 0'),
        (shape('brush'), "Result r0 of task 7 in .*: 'rle' must be a list of bytes"),
        (
            shape('brush', rle=[0, 0, 0, 18, 57, 27, 252]),
            "'rle' is of 18 values, expected 4 for each of",
        ),
        (task(data='x'), "expected a list of tasks with 'data'.*not as JSON-MIN"),
        (task(data={}), r"Task 7 in .* must tell its image in data\['image'\]"),
        (task(data=dict(a='a.jpg', b='b.jpg')), 'must tell its image .* got the keys a, b'),
        (task(data=dict(image='///')), 'must tell its image'),
        (task(data=dict(image='https://example.org/')), 'address of its image: .* names no file'),
        (task(data=dict(image='http://[x')), 'wrong address of its image: Invalid'),
        (task(data=dict(image='c.jpg')), 'c.jpg is annotated twice: task 7 in .*, task 9 in '),
        (task(annotations=None), "Task 7 in .* has no list 'annotations'"),
        (task(annotations=[{}]), "Task 7 in .* has no list 'annotations'"),
        (task(annotations=[dict(result=[3])]), "'result' that is no object"),
        (lambda tasks: tasks.append(3), 'expected a list of tasks'),
    ],
)
@pytest.mark.bad_input(23, 26, 27, 28, 36)
def test_wrong_records_name_file_and_record(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as error:
        BoxPromptDataset(**edited(tmp_path, change))
    assert '\n' not in str(error.value) and 'export.json' in str(error.value)


def boxes(root, change):
    return BoxPromptDataset(**edited(root, change))[0]['boxes'].tolist()


@pytest.mark.parametrize(
    ('change', 'box'),
    [
        (shape('rectangle', **BOX), [20, 30, 40, 36]),
        # a quarter turn about the first corner: 20 px along x are now along y
        (shape('rectangle', **BOX, rotation=90), [14, 30, 20, 50]),
        (shape('ellipse', x=50, y=50, radiusX=12.5, radiusY=10), [30, 24, 50, 36]),
        (shape('ellipse', x=50, y=50, radiusX=12.5, radiusY=10, rotation=90), [34, 20, 46, 40]),
    ],
)
def test_shapes(tmp_path, change, box):
    found = boxes(tmp_path, change)
    assert found[1:] == scenes.BOXES['a'][1:]
    assert found[0] == pytest.approx(box, abs=1)  # the outline of a turned shape is rounded


def remarks_of(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmsam.datasets.readers.problems.print_log', lambda text, **options: lines.append(text)
    )
    return lines


def test_other_results_are_left_out_and_counted(tmp_path, monkeypatch):
    lines = remarks_of(monkeypatch)

    def change(tasks):
        tasks[0]['annotations'][0]['result'] += [
            dict(id='k', type='keypointlabels', value=dict(x=1, y=1)),
            dict(type='choices', value=dict(choices=['good'])),
            dict(first(tasks), id='empty', value=dict(polygonlabels=['cat'], points=[[1, 1]])),
        ]

    assert boxes(tmp_path, change) == scenes.BOXES['a']
    assert "1 results of type 'keypointlabels' left out (result k of task 7)" in lines[0]
    assert "1 results of type 'choices' left out (result 3 of task 7)" in lines[0]
    assert '1 polygons with fewer than 3 points left out (result empty of task 7)' in lines[0]


def test_labels_that_come_as_results_of_their_own(tmp_path):
    def change(tasks):
        results = tasks[0]['annotations'][0]['result']
        for number, label in enumerate(['dog', 'bird']):
            labels = dict(results[number], type='labels', value=dict(labels=[label]))
            results[number]['type'] = 'polygon'
            results.append(labels)

    dataset = BoxPromptDataset(**edited(tmp_path, change))
    assert dataset.metainfo['classes'] == ('bird', 'dog')
    assert (
        dataset[0]['labels'].tolist() == [1, 0]
        and dataset[0]['boxes'].tolist() == scenes.BOXES['a']
    )


def test_results_without_a_label(tmp_path):
    dataset = BoxPromptDataset(**edited(tmp_path, value(polygonlabels=[])))
    assert dataset.metainfo['classes'] == ('dog', 'object')
    assert dataset[0]['labels'].tolist() == [1, 0]


def test_which_annotation_counts(tmp_path, monkeypatch):
    lines = remarks_of(monkeypatch)

    def change(tasks):
        good = tasks[0]['annotations'][0]
        good.update(updated_at='2026-01-02T00:00:00Z')
        older = dict(good, result=[], updated_at='2026-01-01T00:00:00Z')
        cancelled = dict(good, result=[], was_cancelled=True, updated_at='2026-01-03T00:00:00Z')
        tasks[0]['annotations'] = [older, good, cancelled]
        marked = dict(tasks[2]['annotations'][0], ground_truth=True)
        tasks[2]['annotations'] = [marked, dict(marked, ground_truth=False, result=[])]
        tasks[1]['annotations'] = [dict(good, was_cancelled=True)]
        tasks.append(dict(id=10, data=dict(image='d.jpg'), annotations=[]))

    dataset = BoxPromptDataset(**edited(tmp_path, change), empty_images='keep')
    assert [dataset[index]['boxes'].tolist() for index in range(len(dataset))] == [
        scenes.BOXES['a'], scenes.BOXES['c'],
    ]  # fmt: skip
    assert len(lines) == 1
    assert (
        '1 tasks with several annotations, of which the last one changed is taken (task 7)'
        in lines[0]
    )
    assert '2 tasks without an annotation left out (task 8, task 10)' in lines[0]


def test_the_key_of_the_image_may_have_any_name(tmp_path):
    change = task(data=dict(text='no image', photo='s3://bucket/x/a.JPG?token=1', number=3))
    options = edited(tmp_path, change)
    (tmp_path / 'images' / 'a.jpg').rename(tmp_path / 'images' / 'a.JPG')
    assert BoxPromptDataset(**options)[0]['boxes'].tolist() == scenes.BOXES['a']


@pytest.mark.parametrize(
    'address',
    [
        'a b.jpg',
        '/data/upload/12/1a2b3c4d-a%20b.jpg',
        '/data/local-files/?d=photos/2020/a b.jpg',
        '/data/local-files/?d=photos%5C2020%5Ca%20b.jpg',
        'https://example.org/x/a%20b.jpg?size=3#top',
        r'C:\photos\a b.jpg',
        '../../a b.jpg',
    ],
)
@pytest.mark.bad_input(14)
def test_images_are_found(tmp_path, address):
    (tmp_path / 'a b.jpg').touch()
    assert find_image(address, tmp_path) == tmp_path / 'a b.jpg'


def test_the_most_of_a_path_that_fits_counts(tmp_path):
    for name in ('x.jpg', '0a1b2c3d-x.jpg', 'one/x.jpg', 'two/one/x.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_image('/data/two/one/x.jpg', tmp_path) == tmp_path / 'two/one/x.jpg'
    assert find_image('/data/one/x.jpg', tmp_path) == tmp_path / 'one/x.jpg'
    assert find_image('/data/0a1b2c3d-x.jpg', tmp_path) == tmp_path / '0a1b2c3d-x.jpg'
    assert find_image('/data/three/x.jpg', tmp_path) == tmp_path / 'x.jpg'


@pytest.mark.bad_input(13)
@pytest.mark.parametrize('name', ['no.jpg', f'data:image/png;base64,{"A" * 300}'])
def test_images_that_are_missing(tmp_path, name):
    options = edited(tmp_path, task(data=dict(image=name)))
    with pytest.raises(DataError, match='1 of 3 image files are missing: .*images/(no.jpg|.*AAA)'):
        BoxPromptDataset(**options)
