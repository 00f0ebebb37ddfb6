"""Ready-made supernets: call them, or copy them and change what you like."""

from oneshot.spaces.decoder import decoder as decoder
from oneshot.spaces.nb_macro import nb_macro as nb_macro
from oneshot.spaces.tiny import tiny as tiny
from oneshot.spaces.vit import vit as vit
