"""Looking inside a network: what its layers have in common, how far they see, what they weigh, how they scale.

Every function takes a built network in evaluation mode and batches of images, and returns data; `plots` draws them.
"""

from blockforge.analyze.activations import NodeStatistics, activation_statistics
from blockforge.analyze.attention import Reach, relative_receptive_fields
from blockforge.analyze.cam import ClassMap, grad_cam
from blockforge.analyze.cases import Case, cases
from blockforge.analyze.cka import Similarity, similarity
from blockforge.analyze.erf import ReceptiveField, effective_receptive_field
from blockforge.analyze.inputs import Images, estimate_statistics, open_images
from blockforge.analyze.subjects import Subject, subjects
from blockforge.analyze.token_weights import TokenWeights, token_weights
from blockforge.errors import AnalysisError

__all__ = [
    "AnalysisError",
    "Case",
    "ClassMap",
    "Images",
    "NodeStatistics",
    "Reach",
    "ReceptiveField",
    "Similarity",
    "Subject",
    "TokenWeights",
    "activation_statistics",
    "cases",
    "effective_receptive_field",
    "estimate_statistics",
    "grad_cam",
    "open_images",
    "relative_receptive_fields",
    "similarity",
    "subjects",
    "token_weights",
]
