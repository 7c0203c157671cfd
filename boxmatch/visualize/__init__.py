"""Pictures: assignments, detections, curves. No state; matplotlib is imported when a figure is drawn."""

from boxmatch.visualize.assignment import draw_assignment
from boxmatch.visualize.compared_runs import draw_compared_runs
from boxmatch.visualize.curves import draw_curves, draw_pr_curves
from boxmatch.visualize.detections import PageEntry, draw_detections, draw_predictions_page
from boxmatch.visualize.explanation import draw_explanation
from boxmatch.visualize.gallery import GalleryEntry, draw_gallery
from boxmatch.visualize.weights import draw_weights

__all__ = [
    "GalleryEntry",
    "PageEntry",
    "draw_assignment",
    "draw_compared_runs",
    "draw_curves",
    "draw_detections",
    "draw_explanation",
    "draw_gallery",
    "draw_pr_curves",
    "draw_predictions_page",
    "draw_weights",
]
