"""Looking inside a network: what its layers have in common, how far they see, what they weigh, how they scale.

Every function takes a built network in evaluation mode and batches of images, and returns data; `plots` draws them.
"""

from blockforge.analyze.activations import NodeStatistics, activation_statistics
from blockforge.analyze.attention import Reach, relative_receptive_fields
from blockforge.analyze.cam import ClassMap, grad_cam
from blockforge.analyze.cka import Similarity, similarity
from blockforge.analyze.erf import ReceptiveField, effective_receptive_field
from blockforge.analyze.inputs import Images, estimate_statistics, open_images
from blockforge.analyze.network_images import NetworkWithImages, networks_with_images
from blockforge.analyze.networks import Network, build_networks
from blockforge.analyze.token_weights import TokenWeights, token_weights
from blockforge.errors import AnalysisError

__all__ = [
    "AnalysisError",
    "ClassMap",
    "Images",
    "Network",
    "NetworkWithImages",
    "NodeStatistics",
    "Reach",
    "ReceptiveField",
    "Similarity",
    "TokenWeights",
    "activation_statistics",
    "build_networks",
    "effective_receptive_field",
    "estimate_statistics",
    "grad_cam",
    "networks_with_images",
    "open_images",
    "relative_receptive_fields",
    "similarity",
    "token_weights",
]
