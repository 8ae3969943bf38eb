"""What travels between data set, model, metric and visualization: one image and its objects."""

from mmengine.structures import BaseDataElement, InstanceData


class SAMDataSample(BaseDataElement):
    """One image's prompts, ground truth and predictions.

    Metainfo (set by ``PackSAMInputs``):

    - ``img_path`` str; ``img_id`` int or str;
    - ``ori_shape`` (H, W) original px; ``img_shape`` (h, w) input px;
    - ``image_reading``: the ``ImageReading`` with which ``read_rgb`` gives the image again;
    - ``tiles``, ``Window``s in original px, of an image that is predicted tile by tile; it is not
      resized before, so that input px are original px;
    - ``box_noise``, the levels of ``pred_instances.noise_rles``, set by a prediction.

    Fields; the K objects of an image stand in the same order in all of them, unless the boxes are
    a detector's: then ``prompts`` and ``pred_instances`` have D entries of their own.

    - ``prompts.boxes`` (K, 4) float32 xyxy, input px;
    - ``prompts.seeds`` (K,) int64, what clicks and noise of an object depend on;
    - of a detector's boxes: ``prompts.scores`` (D,) float32, ``prompts.labels`` (D,) int64;
    - of a training that draws them: ``prompts.kinds`` (K,) int64, values of ``PromptKind``, with
      which prompt each object begins; ``prompts.points`` (K, 1, 2) float32 (x, y), input px;
      ``prompts.masks`` (K, h/4, w/4) float32, foreground shares of rough masks;
    - ``gt_instances.boxes`` (K, 4) float32 xyxy, original px, without jitter;
    - ``gt_instances.labels`` (K,) int64, index into ``metainfo['classes']``;
    - ``gt_instances.masks`` (K, h, w) uint8 of 0 and 1, input px (training), or
      ``gt_instances.rles``, K compressed COCO RLE dicts, original px (validation, test);
    - ``ignored_instances``, only of an image with COCO crowds in validation and test: of N crowds,
      which are no objects, ``rles``, N compressed COCO RLE dicts, original px, and ``labels`` (N,)
      int64; to ``COCOMaskAP`` a detection on one is neither right nor wrong;
    - ``pred_instances.rles`` K compressed COCO RLE dicts, original px;
    - ``pred_instances.iou_predictions`` (K,) float32, the IoU head's estimate;
    - ``pred_instances.prompt_points`` (K, 2) float32 (x, y), input px, of masks that were predicted
      from these points instead of ``prompts.boxes``;
    - as far as a model's ``test_cfg`` asks for them: ``pred_instances.click_rles``, K lists of N
      RLE, after 1 to N clicks, with ``click_iou_predictions`` (K, N) float32;
      ``pred_instances.noise_rles``, K lists of L RLE, one for each level of ``box_noise``.

    Masks in original px travel as RLE: hundreds of objects on a large page would take gigabytes
    as arrays. ``pycocotools.mask.decode`` turns one into a (H, W) uint8 array.
    """

    @property
    def prompts(self) -> InstanceData:
        return self._prompts

    @prompts.setter
    def prompts(self, value: InstanceData) -> None:
        self.set_field(value, '_prompts', dtype=InstanceData)

    @property
    def gt_instances(self) -> InstanceData:
        return self._gt_instances

    @gt_instances.setter
    def gt_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_gt_instances', dtype=InstanceData)

    @property
    def ignored_instances(self) -> InstanceData:
        return self._ignored_instances

    @ignored_instances.setter
    def ignored_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_ignored_instances', dtype=InstanceData)

    @property
    def pred_instances(self) -> InstanceData:
        return self._pred_instances

    @pred_instances.setter
    def pred_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_pred_instances', dtype=InstanceData)
