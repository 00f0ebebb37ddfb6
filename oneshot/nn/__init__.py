"""Building blocks tuned for the backend: convolutions, norms, elastic blocks."""

from oneshot.nn.attention import attention as attention
from oneshot.nn.backend import resolve as resolve
from oneshot.nn.blocks import ConvBN as ConvBN
from oneshot.nn.blocks import ElasticInvertedResidual as ElasticInvertedResidual
from oneshot.nn.blocks import InvertedResidual as InvertedResidual
from oneshot.nn.conv import Conv as Conv
from oneshot.nn.dense import gelu_dense as gelu_dense
from oneshot.nn.dense import layer_norm as layer_norm
from oneshot.nn.depthwise import depthwise_conv as depthwise_conv
from oneshot.nn.fused import norm_conv as norm_conv
from oneshot.nn.norm import BatchNorm as BatchNorm
from oneshot.nn.norm import batch_norm_train as batch_norm_train
from oneshot.nn.pointwise import pointwise_conv as pointwise_conv
from oneshot.nn.shuffle import ShuffleBlock as ShuffleBlock
from oneshot.nn.transformer import ElasticTransformerBlock as ElasticTransformerBlock
