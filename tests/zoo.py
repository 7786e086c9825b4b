"""The zoo: networks of torchvision and timm to prune, with random weights; nothing is ever downloaded.

All 80 classification networks of torchvision, its segmentation networks, the parts of its detectors that find no boxes,
and small members of the families of CNNs that timm has. Images are as small as each network takes.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from edgeprune.data import InputSpec
from edgeprune.model import Model
from edgeprune.resize import all_tensors

_PLACEHOLDERS = torch.library.Library("torchvision", "FRAGMENT")


@cache
def import_zoo() -> tuple[ModuleType, ModuleType]:
    """Import (torchvision, timm), also a torchvision for CUDA beside a torch for the CPU.

    Such a torchvision cannot load its own operators (all about boxes, none of them used here) and then fails to import
    because it describes operators that do not exist. Placeholders by their names let it in.
    """
    try:
        torchvision = importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        spec = importlib.util.find_spec("torchvision")
        assert spec is not None
        assert spec.origin is not None
        for name in sorted(_described_operators(Path(spec.origin).parent)):
            _PLACEHOLDERS.define(f"{name}() -> ()")
        torchvision = importlib.import_module("torchvision")
    return torchvision, importlib.import_module("timm")


def _described_operators(folder: Path) -> set[str]:
    files = ("_meta_registrations.py", "_autograd_registrations.py")
    named = re.compile(r'register_meta\("(\w+)"|torchvision::(\w+)"')
    return {match[1] or match[2] for file in files for match in named.finditer((folder / file).read_text())}


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Attributes:
        name: "torchvision:..." or "timm:...", from which `edgeprune.sources` builds it too; or "segmentation:...",
            "pyramid:..." or "<detector>:<part>", from which it does not.
        family: what its authors call it, without the size.
        build: makes it, as its library does.
        shape: (channels, height, width) of the images it is tried with.
        transformer: need only not crash; may be left whole.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int] = (3, 64, 64)
    transformer: bool = False

    @property
    def rebuilt(self) -> bool:
        """Whether `edgeprune.sources` builds it from its name, so that a cut one can be loaded again."""
        return self.name.startswith(("torchvision:", "timm:"))

    def model(self) -> Model:
        """The network in eval mode, with seed 0 and no parameter as at birth (`unlike_at_birth`)."""
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            module = unlike_at_birth(self.build()).eval()
        spec = InputSpec(self.shape, (0.0,) * self.shape[0], (1.0,) * self.shape[0])
        return Model(module, spec, self.name.partition(":")[2], self.name)


@torch.no_grad()
def unlike_at_birth(module: nn.Module) -> nn.Module:
    """Give random values to all that starts constant: statistics, scales, offsets, layer scales; in place.

    Ones and zeros hide errors: a normalisation that is the identity, a branch that starts at nothing.
    """
    for name, tensor in all_tensors(module).items():
        learned = isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var", "weight", "bias"))
        if learned and tensor.is_floating_point() and tensor.numel() and tensor.min() == tensor.max():
            low, high = (0.5, 1.5) if tensor.max() > 0 else (-0.5, 0.5)
            tensor.uniform_(low, high)
    return module


class Detector(nn.Module):
    """What a detector computes before it looks for boxes: the maps of its backbone, then its head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> dict[str, Tensor] | list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        return self.head(list(self.backbone(x).values()))


def _torchvision(name: str) -> nn.Module:
    return import_zoo()[0].models.get_model(name, weights=None)


def _timm(name: str) -> nn.Module:
    return import_zoo()[1].create_model(name, pretrained=False)


def _segmentation(name: str) -> nn.Module:
    return import_zoo()[0].models.get_model(name, weights=None, weights_backbone=None)


def _detector(name: str, part: str) -> nn.Module:
    """One part of a detector: its backbone, or all but the boxes."""
    found = import_zoo()[0].models.get_model(name, weights=None, weights_backbone=None)
    return found.backbone if part == "backbone" else Detector(found.backbone, found.get_submodule(part))


def _pyramid(name: str) -> nn.Module:
    """A feature pyramid on a backbone whose normalisation is learned."""
    utilities = import_zoo()[0].models.detection.backbone_utils
    if name.startswith("mobilenet"):
        return utilities.mobilenet_backbone(backbone_name=name, weights=None, fpn=True, norm_layer=nn.BatchNorm2d)
    return utilities.resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d)


_TORCHVISION = {
    "AlexNet": "alexnet",
    "VGG": "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn",
    "SqueezeNet": "squeezenet1_0 squeezenet1_1",
    "Inception": "googlenet inception_v3",
    "ResNet": "resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 wide_resnet101_2",
    "ResNeXt": "resnext50_32x4d resnext101_32x8d resnext101_64x4d",
    "RegNet": "regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf "
    "regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf "
    "regnet_y_128gf",
    "DenseNet": "densenet121 densenet161 densenet169 densenet201",
    "MobileNet-v2": "mobilenet_v2",
    "MobileNet-v3": "mobilenet_v3_small mobilenet_v3_large",
    "MNASNet": "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
    "EfficientNet": "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 "
    "efficientnet_b6 efficientnet_b7",
    "EfficientNet-v2": "efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l",
    "ShuffleNet": "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
    "ConvNeXt": "convnext_tiny convnext_small convnext_base convnext_large",
}
_TORCHVISION_TRANSFORMERS = {
    "ViT": "vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14",
    "Swin": "swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b",
    "MaxViT": "maxvit_t",
}
_SEGMENTATION = {
    "FCN": "fcn_resnet50 fcn_resnet101",
    "DeepLab": "deeplabv3_mobilenet_v3_large deeplabv3_resnet50 deeplabv3_resnet101",
    "LRASPP": "lraspp_mobilenet_v3_large",
}
_DETECTORS = (
    ("SSD", "ssd300_vgg16", "backbone", 300),
    ("SSD", "ssd300_vgg16", "head", 300),
    ("SSD", "ssdlite320_mobilenet_v3_large", "backbone", 128),
    ("SSD", "ssdlite320_mobilenet_v3_large", "head", 128),
    ("Faster R-CNN", "fasterrcnn_mobilenet_v3_large_fpn", "backbone", 128),
    ("Faster R-CNN", "fasterrcnn_resnet50_fpn", "rpn.head", 128),
    ("Faster R-CNN", "fasterrcnn_resnet50_fpn_v2", "rpn.head", 128),
    ("RetinaNet", "retinanet_resnet50_fpn", "head", 128),
    ("RetinaNet", "retinanet_resnet50_fpn_v2", "head", 128),
    ("FCOS", "fcos_resnet50_fpn", "head", 128),
)
_PYRAMIDS = ("resnet18", "resnet50", "mobilenet_v3_large")
_TIMM = {
    "ResNet": "resnet10t resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t resnet32ts resnet33ts resnet34 "
    "resnet50 resnet50c resnet50s resnet50_gn resnet51q resnetaa34d resnetblur18 resnetrs50 wide_resnet50_2 "
    "test_resnet",
    "ResNeXt": "resnext26ts resnext50_32x4d resnext50d_32x4d",
    "SE-ResNet": "seresnet18 seresnet33ts seresnet34 seresnetaa50d seresnext26d_32x4d seresnext26t_32x4d "
    "seresnext26ts legacy_seresnet18 legacy_seresnext26_32x4d",
    "ECA-ResNet": "ecaresnet26t ecaresnetlight ecaresnext26t_32x4d ecaresnet50d_pruned eca_resnet33ts eca_resnext26ts",
    "GC-ResNet": "gcresnet33ts gcresnext26ts",
    "BAT": "bat_resnext26ts",
    "ResNet-v2": "resnetv2_18 resnetv2_18d resnetv2_50 resnetv2_50d_gn resnetv2_50d_evos resnetv2_50d_frn",
    "BiT": "resnetv2_50x1_bit",
    "SKNet": "skresnet18 skresnet34 skresnext50_32x4d",
    "ResNeSt": "resnest14d resnest26d resnest50d_4s2x40d",
    "Res2Net": "res2net50_14w_8s res2net50_48w_2s res2net50d res2next50",
    "RegNet": "regnetx_002 regnetx_004 regnety_002 regnety_004 regnetv_040 regnetz_005 regnetz_b16 regnetz_b16_evos",
    "GENet": "gernet_s gernet_m",
    "DenseNet": "densenet121 densenet169 densenetblur121d",
    "RDNet": "rdnet_tiny",
    "DLA": "dla34 dla46_c dla46x_c dla60 dla60x_c dla60_res2net dla60_res2next",
    "HRNet": "hrnet_w18_small hrnet_w18_small_v2 hrnet_w18",
    "DPN": "dpn48b dpn68 dpn68b",
    "VGG": "vgg11 vgg11_bn vgg13_bn",
    "Inception": "inception_v3 inception_v4 inception_resnet_v2",
    "Xception": "legacy_xception xception41 xception41p xception65",
    "NASNet": "nasnetalarge pnasnet5large",
    "MobileNet-v1": "mobilenetv1_100 mobilenetv1_100h",
    "MobileNet-v2": "mobilenetv2_035 mobilenetv2_050 mobilenetv2_100 mobilenetv2_110d mobilenet_edgetpu_100 "
    "mobilenet_edgetpu_v2_xs",
    "MobileNet-v3": "mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100 mobilenetv3_large_075 "
    "mobilenetv3_large_100 mobilenetv3_rw tf_mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100",
    "MobileNet-v4": "mobilenetv4_conv_small_035 mobilenetv4_conv_small_050 mobilenetv4_conv_small "
    "mobilenetv4_conv_medium mobilenetv4_conv_aa_medium mobilenetv4_conv_blur_medium",
    "MNASNet": "mnasnet_050 mnasnet_small semnasnet_050 semnasnet_075 spnasnet_100",
    "EfficientNet": "efficientnet_b0 efficientnet_b1 efficientnet_b1_pruned efficientnet_b0_gn efficientnet_b0_g8_gn "
    "efficientnet_blur_b0 efficientnet_cc_b0_4e efficientnet_es efficientnet_es_pruned tf_efficientnet_b0 "
    "tf_efficientnet_es",
    "EfficientNet-Lite": "efficientnet_lite0 efficientnet_lite1 tf_efficientnet_lite0",
    "EfficientNet-v2": "efficientnetv2_rw_t efficientnetv2_s gc_efficientnetv2_rw_t tf_efficientnetv2_b0 "
    "efficientnet_x_b3",
    "MixNet": "mixnet_s mixnet_m tf_mixnet_s",
    "GhostNet": "ghostnet_050 ghostnet_100 ghostnetv2_100 ghostnetv3_050",
    "RepGhost": "repghostnet_050 repghostnet_058 repghostnet_100",
    "FBNet": "fbnetc_100 fbnetv3_b",
    "LCNet": "lcnet_035 lcnet_050 lcnet_100 lcnetv2_small",
    "RepVGG": "repvgg_a0 repvgg_a1 repvgg_b1g4 repvgg_d2se",
    "MobileOne": "mobileone_s0 mobileone_s1",
    "RepViT": "repvit_m0_9 repvit_m1",
    "ConvNeXt": "convnext_zepto_rms convnext_atto convnext_atto_ols convnext_atto_rms convnext_femto convnextv2_atto "
    "convnextv2_femto",
    "InceptionNeXt": "inception_next_atto",
    "MambaOut": "mambaout_femto",
    "FasterNet": "fasternet_t0 fasternet_t1",
    "EdgeNeXt": "edgenext_xx_small edgenext_x_small",
    "StarNet": "starnet_s050 starnet_s100 starnet_s1",
    "NFNet": "nfnet_l0 eca_nfnet_l0 dm_nfnet_f0 nf_resnet26 nf_seresnet26 nf_regnet_b0",
    "CSPNet": "cspresnet50 cspresnext50 cspdarknet53 cs3darknet_s cs3darknet_focus_s cs3sedarknet_l cspnext_tiny",
    "Darknet": "darknet17 darknet21 darknet53 darknetaa53 sedarknet21",
    "VoVNet": "ese_vovnet19b_slim ese_vovnet19b_slim_dw ese_vovnet19b_dw vovnet39a eca_vovnet39b",
    "HardCoReNAS": "hardcorenas_a hardcorenas_b hardcorenas_c hardcorenas_d hardcorenas_e hardcorenas_f",
    "TinyNet": "tinynet_a tinynet_b tinynet_c tinynet_d tinynet_e",
    "SelecSLS": "selecsls42 selecsls42b selecsls60 selecsls60b",
    "ReXNet": "rexnet_100 rexnetr_100",
    "HGNet": "hgnet_tiny hgnetv2_b0 hgnetv2_b1",
    "TResNet": "tresnet_m",
    "ConvMixer": "convmixer_768_32",
    "MetaFormer": "poolformer_s12 poolformerv2_s12 convformer_s18",
    "FastViT": "fastvit_t8",
    "CpuBone": "cpubone_nano",
}
_TIMM_TRANSFORMERS = {
    "ViT": "vit_tiny_patch16_224 deit_tiny_patch16_224",
    "Swin": "swin_tiny_patch4_window7_224",
    "MLP-Mixer": "mixer_s32_224 gmlp_ti16_224",
    "MobileViT": "mobilevit_xxs mobilevitv2_050",
    "EfficientViT": "efficientvit_b0 efficientvit_m0",
    "EfficientFormer": "efficientformer_l1",
    "LeViT": "levit_128s",
    "PVT": "pvt_v2_b0",
    "CoaT": "coat_lite_tiny",
    "XCiT": "xcit_nano_12_p16_224",
    "TinyViT": "tiny_vit_5m_224",
    "MobileNet-v4": "mobilenetv4_hybrid_medium",
    "MetaFormer": "caformer_s18",
}
_SIZES = {
    96: "torchvision:inception_v3 timm:inception_v3 timm:inception_v4 timm:inception_resnet_v2",
    224: "torchvision:maxvit_t torchvision:vit_b_16 torchvision:vit_b_32 torchvision:vit_l_16 torchvision:vit_l_32 "
    "torchvision:vit_h_14 timm:vit_tiny_patch16_224 timm:deit_tiny_patch16_224 timm:swin_tiny_patch4_window7_224 "
    "timm:mixer_s32_224 timm:gmlp_ti16_224 timm:efficientformer_l1 timm:levit_128s timm:coat_lite_tiny",
    256: "timm:bat_resnext26ts",
}
"""Networks that take nothing as small as 64x64."""


def _listed(
    library: str, build: Callable[[str], nn.Module], families: dict[str, str], *, transformer: bool = False
) -> list[Network]:
    sizes = {name: size for size, names in _SIZES.items() for name in names.split()}
    return [
        Network(source, family, partial(build, name), (3, size, size), transformer)
        for family, names in families.items()
        for name in names.split()
        for source in [f"{library}:{name}"]
        for size in [sizes.get(source, 64)]
    ]


NETWORKS = (
    *_listed("torchvision", _torchvision, _TORCHVISION),
    *_listed("torchvision", _torchvision, _TORCHVISION_TRANSFORMERS, transformer=True),
    *_listed("segmentation", _segmentation, _SEGMENTATION),
    *(
        Network(f"{name}:{part}", family, partial(_detector, name, part), (3, size, size))
        for family, name, part, size in _DETECTORS
    ),
    *(Network(f"pyramid:{name}", "FPN", partial(_pyramid, name), (3, 128, 128)) for name in _PYRAMIDS),
    *_listed("timm", _timm, _TIMM),
    *_listed("timm", _timm, _TIMM_TRANSFORMERS, transformer=True),
)
"""Every network of the zoo, by library and family."""
