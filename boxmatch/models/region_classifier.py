"""The second stage of Faster R-CNN: which class each proposal shows, and where its box really lies.

Letters: R proposals of the whole batch, C classes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from boxmatch.assign import MaxIoU
from boxmatch.delta_coder import DeltaCoder
from boxmatch.losses.sampling import balanced_sample
from boxmatch.postprocess import PostProcess, clip
from boxmatch.priors import Priors
from boxmatch.structures import Detections, Targets

_LEVELS = 4  # P2 to P5; P6 serves the first stage only
_SIDE = 7  # cells that a region is read in, per axis
_POSITIVE_FRACTION = 0.25  # of the sample; Girshick 2015 (Fast R-CNN), sec. 2.3


class Regions(NamedTuple):
    """What the second stage says about each proposal; the background is the last class."""

    logits: Float[Tensor, "R C1"]
    deltas: Float[Tensor, "R C 4"]


class _Lesson(NamedTuple):
    """Sampled proposals of one picture, the class of each (C for background), and deltas of the positives."""

    proposals: Float[Tensor, "N 4"]
    labels: Int64[Tensor, "N"]
    deltas: Float[Tensor, "M 4"]


class RegionClassifier(nn.Module):
    """Reads each proposal from the level of its size, two linear layers, then classes and one box per class.

    In training the boxes of the picture join the proposals; `samples` of each picture are drawn, at most a
    quarter of them with an IoU of 0.5 or more, and learn by cross entropy and by the L1 distance of the
    deltas of their class, both divided by the number drawn. Background inside ignore regions is not drawn.

    Args:
        channels: of the maps.
        num_classes: without the background.
        width: of the two layers.
        samples: proposals drawn of each picture in training.

    Raises:
        ValueError: `samples` or `width` is below 1.

    Source: Ren et al. 2015 (Faster R-CNN), Lin et al. 2017 (FPN), with the settings of Detectron2. Regions
    are read by torchvision's RoIAlign, half a cell to the right and below of Detectron2's later version.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 1024, samples: int = 512) -> None:
        super().__init__()
        if width < 1 or samples < 1:
            raise ValueError(f"expected a width and samples of 1 or more, got {width} and {samples}")
        self.samples = samples
        self.pool = MultiScaleRoIAlign([str(level) for level in range(_LEVELS)], _SIDE, sampling_ratio=0)
        self.layers = TwoMLPHead(channels * _SIDE**2, width)
        self.class_logits = nn.Linear(width, num_classes + 1)
        self.deltas = nn.Linear(width, 4 * num_classes)
        self.assigner = MaxIoU.rcnn()
        self.coder = DeltaCoder()
        # The deviations of Detectron2.
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for linear in (self.layers.fc6, self.layers.fc7):
            nn.init.kaiming_uniform_(linear.weight, a=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        features: Sequence[Float[Tensor, "B D _H _W"]],
        proposals: list[Float[Tensor, "_K 4"]],
        size: tuple[int, int],
    ) -> Regions:
        """Classes and deltas of every proposal, float32, one picture after the other.

        Args:
            features: P2 to P5 and more.
            proposals: of each picture, xyxy in pixels.
            size: height and width of the input in pixels; tells the strides of the maps.
        """
        device = features[0].device.type
        # The bilinear weights of RoIAlign lose too much in half precision.
        with torch.autocast(device, enabled=False):
            levels = OrderedDict((str(n), level.float()) for n, level in enumerate(features[:_LEVELS]))
            pooled = self.pool(levels, proposals, [size] * len(proposals))
        read = self.layers(pooled)
        deltas = self.deltas(read).float().unflatten(1, (-1, 4))
        return Regions(self.class_logits(read).float(), deltas)

    def losses(
        self,
        features: Sequence[Float[Tensor, "B D _H _W"]],
        proposals: list[Float[Tensor, "_K 4"]],
        size: tuple[int, int],
        targets: Targets,
    ) -> dict[str, Float[Tensor, ""]]:
        """Terms "class" and "box"; 0 with the graph where nothing is drawn.

        Args:
            features: see `forward`.
            proposals: see `forward`; without gradient.
            size: see `forward`.
            targets: boxes and labels of the batch.
        """
        # Proposals differ from picture to picture, so there is no one set of priors for the batch.
        lessons = [
            self._lesson(boxes, targets.select(targets.image == number))
            for number, boxes in enumerate(proposals)
        ]
        regions = self(features, [lesson.proposals for lesson in lessons], size)
        labels = torch.cat([lesson.labels for lesson in lessons])
        rows = (labels < regions.deltas.shape[1]).nonzero().squeeze(1)
        count = max(len(labels), 1)
        wanted = torch.cat([lesson.deltas for lesson in lessons])
        distance = (regions.deltas[rows, labels[rows]] - wanted).abs().sum()
        return {
            "class": cross_entropy(regions.logits, labels, reduction="sum") / count,
            "box": distance / count,
        }

    @torch.no_grad()
    def _lesson(self, proposals: Float[Tensor, "K 4"], targets: Targets) -> _Lesson:
        """What one picture teaches.

        Args:
            targets: of this picture alone, though counted among those of the batch.
        """
        alone = Targets(
            targets.boxes, targets.labels, torch.zeros_like(targets.image), targets.ignore, batch_size=1
        )
        proposals = torch.cat((proposals, alone.boxes[~alone.ignore]))
        priors = Priors.from_boxes(proposals)
        index = self.assigner(priors, alone).gt_index()
        sample = balanced_sample(index >= 0, index == -1, self.samples, _POSITIVE_FRACTION)
        positive, negative = sample.positive[1], sample.negative[1]
        gts = index[0, positive]
        background = alone.labels.new_full((len(negative),), self.class_logits.out_features - 1)
        return _Lesson(
            proposals[torch.cat((positive, negative))],
            torch.cat((alone.labels[gts], background)),
            self.coder.encode_xyxy(alone.boxes[gts], priors, positive),
        )

    def detections(
        self,
        regions: Regions,
        proposals: list[Float[Tensor, "_K 4"]],
        limits: Float[Tensor, "B 4"],
        postprocess: PostProcess,
    ) -> list[Detections]:
        """Every class of a proposal with enough probability is a detection of its own, until NMS.

        Args:
            regions: what `forward` said about the proposals.
            proposals: of each picture.
            limits: width, height, width, height that boxes are clipped to, of each picture.
            postprocess: thresholds and limits.
        """
        counts = torch.tensor([len(boxes) for boxes in proposals], device=limits.device)
        image_of = torch.arange(len(proposals), device=limits.device).repeat_interleave(counts)
        scores = regions.logits.softmax(1)[:, :-1]
        row, label = (scores > postprocess.score_threshold).nonzero().unbind(1)
        priors = Priors.from_boxes(torch.cat(proposals))
        decoded = self.coder.decode_xyxy(regions.deltas[row, label], priors, row)
        boxes, valid = clip(decoded, limits[image_of[row]])
        kept = valid.nonzero().squeeze(1)
        row, label = row[kept], label[kept]
        return postprocess.select(
            boxes[kept], scores[row, label], label, image_of[row], len(proposals), scores.shape[1]
        )
