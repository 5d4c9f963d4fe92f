"""Write `docs/architectures.md`: how camlab draws maps of each classifier of torchvision and of families of timm's.

    .venv/bin/python scripts/architectures.py           all rows, anew: half an hour on 1 core; timm must be installed
    .venv/bin/python scripts/architectures.py resnet18  these rows only; the others stay as they are

A row is computed from random weights, so it tells the layer, its layout and the methods that apply, not how good a map
is. Where all values of a parameter are equal (as those of a new network's layer scale), noise is added to them, since
the last layers of a network that multiplies by 1e-6 say nothing.
"""

import sys
import warnings
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from camlab import Explainer
from camlab.attribution.layouts import Layout
from camlab.errors import UserError

DOCUMENT = Path(__file__).parent.parent / "docs" / "architectures.md"
SIDES = (96, 128, 160, 224)  # the first at which the map has enough cells is taken, else the network's own
FEWEST_CELLS = 3
METHODS = {
    "cam": "CAM",
    "grad_cam": "gradients",
    "layer_cam_all": "all layers",
    "guided_grad_cam": "guided",
    "attention_relevance": "relevance",
    "legrad": "LeGrad",
}
TIMM = """
beit_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224 coat_lite_tiny coatnet_pico_rw_224 convit_tiny
convmixer_768_32 convnext_atto crossvit_tiny_240 cs3darknet_focus_s cspnext_tiny davit_tiny deit_tiny_patch16_224
deit_tiny_distilled_patch16_224 dla46x_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientnet_lite0 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
ghostnet_050 gmlp_ti16_224 halonet_h1 hgnetv2_b0 hiera_tiny_224 hrnet_w18_small inception_next_atto lcnet_035
levit_128s mambaout_femto maxvit_rmlp_pico_rw_256 mixer_s32_224 mobilenetv3_small_050 mobileone_s1 mobilevit_xxs
mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small nf_regnet_b0 pit_ti_224 poolformer_s12 pvt_v2_b0 rdnet_tiny
regnetx_002 repghostnet_050 repvit_m0_9 resmlp_12_224 resnest14d resnet10t resnetv2_18 rexnet_100 sequencer2d_s
shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224
swinv2_tiny_window8_256 tiny_vit_5m_224 tnt_s_legacy_patch16_224 twins_svt_small visformer_tiny
vit_base_patch32_clip_224 vit_relpos_small_patch16_224 vit_small_patch14_reg4_dinov2 vit_tiny_patch16_224
vit_tiny_r_s16_p8_224 volo_d1_224 vovnet39a xcit_nano_12_p16_224
"""
INTRODUCTION = """# Architectures

How camlab draws maps of each classifier of torchvision and of {families} networks of timm, mostly the smallest of their
families. `scripts/architectures.py` writes this table; a test computes some of its rows again.

- **picture**: side of the pictures for which the row was computed, in pixels.
- **layer**: the default layer of methods that use gradients of a layer, and the **layout** of its output: N×C×H×W,
  N×H×W×C, or N×tokens×C, with the grid. Larger pictures have larger grids.
- **auto**: the method that `method="auto"` names.
- **methods**: which methods apply. *gradients* stands for all that use the layer's output and gradients (Grad-CAM,
  Grad-CAM++, XGrad-CAM, HiResCAM, LayerCAM, Finer-CAM) or its output alone (Eigen-CAM, Score-CAM, Ablation-CAM);
  *all layers* for LayerCAM of all layers, *guided* for guided Grad-CAM, *relevance* for attention relevance.

**Grad-CAM at the last stage of a ConvNeXt may be wrong.** Its 7×7 kernels cover most cells, so that a cell's features
are of the whole picture; in a Swin, attention and shifted windows mix the cells. In
[our study](../experiments/architectures/README.md), Grad-CAM found the object no better than chance there, or camlab
refused to draw it. `auto` therefore takes LayerCAM of all layers for both (auroc .92 to .95), wherever one kernel
covers three quarters of the cells. The layers whose layout is known depend on the weights and on the size of the
pictures, and with larger pictures (from 288² for a ConvNeXt) `auto` is Grad-CAM again. Where CAM is exact in spite of
such kernels, `auto` names it, and `camlab-explain` and the callback warn.

| network | picture | layer | layout | auto | methods |
|---|---|---|---|---|---|
"""


def names() -> list[str]:
    """All networks of the table."""
    return [
        *torchvision.models.list_models(module=torchvision.models),
        *(f"timm/{name}" for name in sorted(TIMM.split())),
    ]


def build(name: str) -> tuple[nn.Module, int]:
    """Build a network with random weights; also return the side of the pictures that it is made for."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        network = timm.create_model(name.removeprefix("timm/"), num_classes=1000)  # some have no head by default
        side = network.default_cfg["input_size"][-1]
    else:
        special = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        network = torchvision.models.get_model(name, weights=None, **special)
        side = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval(), side


def pictures(side: int) -> Tensor:
    """Two pictures of noise."""
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def row(name: str) -> str:
    """Compute a network's row."""
    network, own_side = build(name)
    explainer, refusal = Explainer(network), ""
    for side in [*(side for side in SIDES if own_side / 3 < side < own_side), own_side]:
        images = pictures(side)
        try:
            auto = explainer.method_for(images)
            explainer(images, auto)
        except UserError as error:
            refusal = str(error).replace("|", "/")
            continue
        layer, layout = at_default(explainer, images)
        if side < own_side and (layout is None or min(layout.grid) < FEWEST_CELLS):
            continue
        apply = ", ".join(short for method, short in METHODS.items() if explainer.supports(method, images))
        return f"| {name} | {side} | {layer} | {layout or '–'} | {auto} | {apply} |"
    return f"| {name} | {own_side} | | | | refused: {refusal} |"


def at_default(explainer: Explainer, images: Tensor) -> tuple[str, Layout | None]:
    """The default layer and its layout, if camlab does not refuse to name one."""
    try:
        layer = explainer.default_layer(images)
        return f"`{layer}`", explainer.layout_of(layer, images)
    except UserError:
        return "none is known", None


def read_rows() -> dict[str, str]:
    """The rows of the document by network."""
    lines = DOCUMENT.read_text().splitlines() if DOCUMENT.is_file() else []
    table = [line for line in lines if line.startswith("| ") and not line.startswith("| network ")]
    return {line.split("|")[1].strip(): line for line in table}


def write(rows: dict[str, str]) -> None:
    """Write the document with the rows that there are."""
    listed = [rows[name] for name in names() if name in rows]
    families = sum(name.startswith("timm/") for name in rows)
    DOCUMENT.write_text(INTRODUCTION.format(families=families) + "\n".join(listed) + "\n")


def main() -> None:
    """Compute the rows that are asked for, or all, and write the document after each."""
    warnings.simplefilter("ignore")  # timm's networks warn of deprecated functions of torch
    torch.set_num_threads(1)
    if not sys.argv[1:]:
        DOCUMENT.unlink(missing_ok=True)
    for name in sys.argv[1:] or names():
        found = row(name)
        print(found, flush=True)
        write({**read_rows(), name: found})


if __name__ == "__main__":
    main()
