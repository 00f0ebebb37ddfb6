"""Ready-made supernets: call them, or copy them and change what you like."""

from oneshot.spaces.cell201 import cell201 as cell201
from oneshot.spaces.decoder import decoder as decoder
from oneshot.spaces.mobilenet_v3 import mobilenet_v3 as mobilenet_v3
from oneshot.spaces.nb_macro import nb_macro as nb_macro
from oneshot.spaces.resnet50 import resnet50 as resnet50
from oneshot.spaces.shufflenet import shufflenet as shufflenet
from oneshot.spaces.speech import speech as speech
from oneshot.spaces.tabular import tabular as tabular
from oneshot.spaces.tiny import tiny as tiny
from oneshot.spaces.vit import vit as vit
