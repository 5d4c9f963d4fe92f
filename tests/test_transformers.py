"""Maps of transformers and of other layouts than N×K×H×W: the right cells, the right layer, or a refusal."""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import camlab
from camlab import Explainer, maps
from camlab.attribution.hooks import passing
from camlab.attribution.layouts import Layout, possible_layouts, token_grids
from camlab.attribution.survey import Survey, _agreeing
from camlab.errors import UserError

SIDE, PATCH, WIDTH, CLASSES = 32, 8, 16, 5


class Attention(nn.Module):
    """Self-attention in its usual forms: fused, written out, or with torch's module."""

    def __init__(self, form: str, heads: int = 2) -> None:
        super().__init__()
        self.form, self.heads = form, heads
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.form == "torch":
            return F.multi_head_attention_forward(
                *3 * [tokens.transpose(0, 1)],
                WIDTH,
                self.heads,
                self.qkv.weight,
                self.qkv.bias,
                None,
                None,
                False,
                0.0,
                self.proj.weight,
                self.proj.bias,
                need_weights=False,
            )[0].transpose(0, 1)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.form == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention(form)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """A vision transformer that classifies from its class token or from the mean of the patches."""

    def __init__(self, form: str = "fused", prefix: int = 1, pool: str = "token", depth: int = 3, side=(SIDE, SIDE)):
        super().__init__()
        self.embed, self.pool, self.prefix = nn.Conv2d(3, WIDTH, PATCH, PATCH), pool, prefix
        self.extra = nn.Parameter(torch.randn(prefix, WIDTH))
        self.position = nn.Parameter(0.1 * torch.randn(side[0] * side[1] // PATCH**2, WIDTH))
        self.blocks = nn.Sequential(*(Block(form) for _ in range(depth)))
        self.norm = nn.LayerNorm(WIDTH) if pool == "token" else nn.Identity()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2) + self.position
        tokens = torch.cat([self.extra.expand(len(images), -1, -1), patches], dim=1)
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens[:, 0] if self.pool == "token" else tokens[:, self.prefix :].mean(dim=1))


def vit(**options) -> nn.Module:
    torch.manual_seed(0)
    return ViT(**options).eval()


IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


# ---- layouts ----


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("side", [(32, 32), (32, 64), (48, 32)])
def test_tokens_and_those_before_them(prefix, side):
    survey = Survey(vit(prefix=prefix, pool="mean", side=side), torch.zeros(1, 3, *side))
    grid = (side[0] // PATCH, side[1] // PATCH)
    assert survey.layout("blocks.1") == Layout("NLC", grid, prefix)
    assert survey.layout("embed") == Layout("NCHW", grid)


@pytest.mark.parametrize("rows", [3, 4, 5, 7, 9, 14])
def test_tokens_whose_odd_rows_run_backwards_are_no_map(rows):
    network = vit(pool="mean", side=(8 * rows, 8 * rows))
    survey = Survey(network, torch.zeros(1, 3, 8 * rows, 8 * rows))
    assert survey.layout("blocks.1") == Layout("NLC", (rows, rows), 1), "the same rows, all forwards"
    places = torch.arange(rows * rows).reshape(rows, rows)
    places[1::2] = places[1::2].flip(1)
    network.embed = nn.Sequential(network.embed, Shuffled(places))
    survey = Survey(network, torch.zeros(1, 3, 8 * rows, 8 * rows))
    with pytest.raises(UserError, match="does not show which axes are rows and columns"):
        survey.layout("blocks.1")


class Shuffled(nn.Module):
    """Puts the cells of a map in another order."""

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self.places = places

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(2)[:, :, self.places]


def test_channels_last():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 4)  # four channels and four rows
            self.head = nn.Linear(4, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.mix(self.embed(images).permute(0, 2, 3, 1)).mean(dim=(1, 2)))

    torch.manual_seed(0)
    network = Last().eval()
    assert Survey(network, torch.zeros(1, 3, 32, 32)).layout("mix") == Layout("NHWC", (4, 4))
    found = Explainer(network).explain(IMAGES, ["cam", "hires_cam"], top_k=CLASSES)
    assert found.layers["cam"] == ("mix",)
    torch.testing.assert_close(found.maps["hires_cam"][0] * 16, found.maps["cam"][0])
    torch.testing.assert_close(
        found.maps["cam"][0].mean(dim=(2, 3)) + network.head.bias[found.class_idx],
        found.logits.gather(1, found.class_idx),
    )


def test_heads_are_not_channels():
    """Queries are N×heads×tokens×width: no axis of theirs is a row of the picture."""

    class Normed(Attention):
        def __init__(self, form: str) -> None:
            super().__init__(form)
            self.q_norm = nn.LayerNorm(WIDTH // 2)

        def forward(self, tokens: Tensor) -> Tensor:
            q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            return self.proj(F.scaled_dot_product_attention(self.q_norm(q), k, v).transpose(1, 2).flatten(2))

    network = vit()
    for block in network.blocks:
        block.attn = Normed("fused")
    with pytest.raises(
        UserError, match=r"layer=blocks\.2\.attn\.q_norm: .* does not show .* such as .*blocks\.2\.norm1"
    ):
        camlab.heatmaps(network, IMAGES, "grad_cam", "blocks.2.attn.q_norm")


def test_a_grid_that_is_shuffled_is_refused():
    class Shuffled(ViT):
        def forward(self, images: Tensor) -> Tensor:
            patches = self.embed(images).flatten(2).transpose(1, 2)[:, torch.arange(16) * 7 % 16]
            return self.head(self.blocks(patches).mean(dim=1))

    with pytest.raises(UserError, match=r"layer=blocks\.1: .* rows and columns"):
        camlab.heatmaps(Shuffled(prefix=0).eval(), IMAGES, "grad_cam", "blocks.1")


def test_possible_layouts_are_about_as_wide_as_the_picture():
    assert token_grids(49, (224, 224)) == [(7, 7)]
    assert Layout("NLC", (14, 6), 1) in list(possible_layouts(torch.Size([1, 85, 8]), (224, 96)))


# ---- layers ----


def test_a_layer_on_which_no_score_depends_is_refused():
    """Behind the last attention, the class token does not see the patches any more: Grad-CAM there is zero."""
    network = vit(pool="token")
    assert Explainer(network).default_layer(IMAGES) == "blocks.2.norm1"
    with pytest.raises(
        UserError, match=r"grad_cam at blocks\.2: no class score depends on the cells.* Choose layer=blocks\.2\.norm1"
    ):
        camlab.heatmaps(network, IMAGES, "grad_cam", "blocks.2")


def test_the_default_layer_of_a_head_that_starts_with_zeros():
    network = vit(pool="token")
    nn.init.zeros_(network.head.weight)
    assert Explainer(network).default_layer(IMAGES) == "blocks.2.norm1"
    with pytest.raises(UserError, match="no class score depends"):
        camlab.heatmaps(network, IMAGES)


def test_cells_at_the_end_that_no_score_depends_on():
    """PiT's stages give N×K×H×W and a class token, and only the token is read: nothing reaches the last N×K×H×W."""
    timm = pytest.importorskip("timm", reason="timm is not installed; camlab works without it")
    torch.manual_seed(0)
    small = {"img_size": 64, "base_dims": [8, 8, 8], "depth": [1, 2, 2], "heads": [1, 2, 4], "num_classes": CLASSES}
    explainer, images = Explainer(timm.create_model("pit_ti_224", **small).eval()), torch.randn(1, 3, 64, 64)
    assert explainer.layout_of("transformers", images).order == "NCHW"
    assert explainer.default_layer(images).startswith("transformers.1.blocks.")
    assert explainer.method_for(images) == "layer_cam_all", "its last features are tokens, whatever its convolutions do"
    assert explainer(images).max() > 0


@pytest.mark.parametrize(("pool", "layer"), [("mean", "blocks.2"), ("token", "blocks.2.norm1")])
def test_the_default_layer_of_a_network_without_a_head(pool, layer):
    """Its last linear layer is in the last block, and is not what the scores are computed from."""
    network = vit(pool=pool)
    network.head = nn.Identity()
    assert Explainer(network).default_layer(IMAGES) == layer
    assert camlab.heatmaps(network, IMAGES, "grad_cam").max() > 0


def test_a_branch_that_starts_with_a_norm_is_no_norm():
    class NormMlp(nn.Sequential):
        pass

    class Network(ViT):
        def __init__(self) -> None:
            super().__init__(pool="mean", prefix=0, depth=0)
            self.norm, self.mlp = nn.LayerNorm(WIDTH), NormMlp(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.norm(self.embed(images).flatten(2).transpose(1, 2))
            return self.head((tokens + self.mlp(tokens)).mean(dim=1))

    assert Explainer(Network().eval()).default_layer(IMAGES) == "mlp.0"


def test_a_mean_pooled_head_on_tokens():
    """Z · Grad-CAM = CAM where the mean of the tokens goes into one linear layer."""
    network = vit(pool="mean", prefix=2)
    found = Explainer(network).explain(IMAGES, ["cam", "grad_cam"], top_k=3)
    assert found.layers["grad_cam"] == ("blocks.2",)
    with pytest.raises(UserError, match="cam: the network does not end in global average pooling"):
        Explainer(vit(pool="token")).explain(IMAGES, ["cam"])
    torch.testing.assert_close(found.maps["grad_cam"][0] * 16, found.maps["cam"][0])


def test_the_stage_before_the_last_of_a_swin():
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([2, 2], 8, [1, 1, 2], [2, 2, 2], [4, 4], num_classes=CLASSES).eval()
    images = torch.randn(1, 3, 32, 32)
    explainer = Explainer(network)
    assert explainer.method_for(images) == "layer_cam_all"
    assert Explainer(network, "features.3").method_for(images) == "hires_cam"
    assert (explainer.default_layer(images), explainer.layout_of("features.3", images).order) == ("features.3", "NHWC")
    with pytest.raises(UserError, match=r"attention is not between all tokens of one grid \(it has windows"):
        camlab.heatmaps(network, images, "attention_relevance")


def test_a_finer_grid_before_most_of_the_network_is_too_early():
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([2, 2], 8, [1, 4], [2, 2], [4, 4], num_classes=CLASSES).eval()
    assert Explainer(network).default_layer(torch.randn(1, 3, 32, 32)) == "norm"


def test_layouts_of_tokens_that_other_layers_contradict_are_unknown():
    right, wrong, other = Layout("NLC", (14, 14), 1), Layout("NLC", (13, 14), 15), Layout("NLC", (7, 7), 1)
    found = {"a": right, "b": wrong, "c": right, "d": other, "e": Layout("NCHW", (13, 14))}
    assert list(_agreeing(found)) == ["a", "c", "d", "e"]
    assert list(_agreeing({"a": right, "b": wrong, "d": other})) == ["d"], "of two, neither is shown right"


# ---- gradient checkpointing, which runs parts of a network again when hooks are gone ----


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 12}),
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)}),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)}),
        ("test_resnet", {}),
    ],
)  # fmt: skip
def test_gradient_checkpointing_of_timm_changes_no_map(name, small):
    timm = pytest.importorskip("timm", reason="timm is not installed; camlab works without it")
    images, found = torch.randn(2, 3, 32 if "img_size" in small else 64, 32 if "img_size" in small else 64), []
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=CLASSES, **small).eval()
    for on in (False, True):
        network.set_grad_checkpointing(on)
        explainer = Explainer(network)
        early = next(layer for layer in explainer.survey(images).layouts if "." in layer)
        methods = [explainer.method_for(images), "grad_cam"]
        found.append([explainer(images, method) for method in methods])
        found[-1].append(camlab.heatmaps(network, images, "layer_cam", [early, explainer.default_layer(images)]))
    for plain, checkpointed in zip(*found, strict=True):
        assert plain.max() > 0
        assert torch.equal(plain, checkpointed)
    assert any(getattr(module, "grad_checkpointing", False) for module in network.modules())


class Checkpointed(nn.Module):
    """A block whose owner calls torch.utils.checkpoint, which cannot be switched off from outside."""

    def __init__(self, block: nn.Module, use_reentrant: bool) -> None:
        super().__init__()
        self.block, self.use_reentrant = block, use_reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        return checkpoint(self.block, tokens, use_reentrant=self.use_reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("checkpointed", [1, 3])
def test_gradient_checkpointing_of_ones_own_changes_no_map_or_is_refused(use_reentrant, checkpointed):
    plain, network = vit(), vit()
    for i in range(checkpointed):
        network.blocks[i] = Checkpointed(network.blocks[i], use_reentrant)
    refusals = []
    for method in ("attention_relevance", "legrad", "grad_cam", "finer_cam"):
        try:
            found = camlab.heatmaps(network, IMAGES, method)
        except UserError as refusal:
            refusals.append(str(refusal))
        else:
            assert torch.equal(found, camlab.heatmaps(plain, IMAGES, method))
    ways_out = r"Switch its gradient checkpointing off|the network cuts the graph \(.*gradient checkpointing\)"
    assert all(re.search(ways_out, refusal) for refusal in refusals)
    assert refusals or checkpointed == 1, "attention relevance needs the gradients within all blocks"


# ---- attention methods ----


def plain_relevance(network: ViT, images: Tensor, class_idx: int) -> Tensor:
    """Chefer's relevance of the class token, written out for the network above."""
    kept: list[Tensor] = []
    for block in network.blocks:
        attention = block.attn

        def forward(tokens: Tensor, attention: Attention = attention) -> Tensor:
            q, k, v = attention.qkv(tokens).unflatten(2, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
            kept.append(weights)
            return attention.proj((weights @ v).transpose(1, 2).flatten(2))

        attention.forward = forward
    gradients = torch.autograd.grad(network(images)[:, class_idx].sum(), kept)
    relevance = torch.eye(kept[0].shape[-1]).expand(len(images), -1, -1)
    for weights, gradient in zip(kept, gradients, strict=True):
        relevance = relevance + (weights * gradient).clamp(min=0).mean(dim=1) @ relevance
    for block in network.blocks:
        del block.attn.forward
    return relevance.detach()


@pytest.mark.parametrize("form", ["fused", "plain", "torch"])
@pytest.mark.parametrize("frozen", [False, True])
def test_relevance_of_the_class_token(form, frozen):
    network = vit(form=form, prefix=3).requires_grad_(not frozen)
    expected = plain_relevance(copy.deepcopy(network).requires_grad_(), IMAGES, 2)[:, 0, 3:].reshape(2, 4, 4)
    found = Explainer(network).explain(IMAGES, ["attention_relevance"], torch.tensor([[2], [2]]))
    torch.testing.assert_close(found.maps["attention_relevance"][0][:, 0], expected)
    assert found.layers == {"attention_relevance": ("blocks.0 to blocks.2",)}


def test_relevance_of_pooled_tokens():
    network = vit(pool="mean", prefix=0)
    relevance = plain_relevance(copy.deepcopy(network), IMAGES, 1)
    expected = (relevance - torch.eye(16)).mean(dim=1).reshape(2, 4, 4)
    found = Explainer(network).explain(IMAGES, ["attention_relevance"], torch.tensor([[1], [1]]))
    torch.testing.assert_close(found.maps["attention_relevance"][0][:, 0], expected)


def test_legrad_equals_its_plainest_form():
    network = vit(form="plain")
    kept: list[Tensor] = []
    softmax = Tensor.softmax

    def keeping(scores: Tensor, dim: int) -> Tensor:
        kept.append(softmax(scores, dim=dim))
        return kept[-1]

    tokens = torch.cat(
        [network.extra.expand(2, -1, -1), network.embed(IMAGES).flatten(2).transpose(1, 2) + network.position], 1
    )
    expected = torch.zeros(2, 17)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "softmax", keeping)
        for block in network.blocks:
            tokens = block(tokens)
            score = network.head(network.norm(tokens)[:, 0])[:, 3].sum()
            (gradient,) = torch.autograd.grad(score, kept[-1], retain_graph=True)
            expected += gradient.clamp(min=0).mean(dim=(1, 2)) / 3
    found = Explainer(network).explain(IMAGES, ["legrad"], torch.tensor([[3], [3]])).maps["legrad"][0]
    torch.testing.assert_close(found[:, 0].flatten(1), expected[:, 1:].detach())


def test_attention_methods_do_not_take_a_layer():
    with pytest.raises(UserError, match=r"attention_relevance: .* Leave layer out"):
        camlab.heatmaps(vit(), IMAGES, "attention_relevance", "blocks.1")


def test_attention_methods_refuse_convolutional_networks():
    network = torchvision.models.resnet18(weights=None).eval()
    for method in ("attention_relevance", "legrad"):
        with pytest.raises(UserError, match="the network has no attention"):
            camlab.heatmaps(network, torch.randn(1, 3, 64, 64), method)


def test_evidence_against_a_class():
    """It is the evidence for the class in a network whose scores have the other sign."""
    network, other = vit(), vit()
    with torch.no_grad():
        other.head.weight.neg_()
        other.head.bias.neg_()
    methods, classes = ["attention_relevance", "legrad"], torch.tensor([[0], [0]])
    against = Explainer(network).explain(IMAGES, methods, classes, counterfactual=True).maps
    expected = Explainer(other).explain(IMAGES, methods, classes).maps
    plain = Explainer(network).explain(IMAGES, methods, classes).maps
    for method in methods:
        torch.testing.assert_close(against[method][0], expected[method][0])
        assert not torch.allclose(against[method][0], plain[method][0])


# ---- auto ----


def test_auto_names_one_method():
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    gap = nn.Sequential(convolutional, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)).eval()
    flat = nn.Sequential(convolutional, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)).eval()
    named = {name: Explainer(n).method_for(IMAGES) for name, n in {"gap": gap, "flat": flat, "vit": vit()}.items()}
    assert named == {"gap": "cam", "flat": "grad_cam", "vit": "attention_relevance"}
    assert Explainer(gap).method_for(IMAGES, counterfactual=True) == "grad_cam"
    assert torch.equal(camlab.heatmaps(gap, IMAGES), camlab.heatmaps(gap, IMAGES, "cam"))


class Failing(nn.Linear):
    """A head that raises an error in a chosen pass."""

    passes = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.passes -= 1
        if self.passes == 0:
            raise RuntimeError("out of memory")
        return super().forward(tokens)


@pytest.mark.parametrize("method", ["attention_relevance", "legrad", "hires_cam"])
@pytest.mark.parametrize("fails_in", [0, 1, 2])
def test_nothing_changes(method, fails_in):
    network = vit()
    network.head = Failing(WIDTH, CLASSES)
    network.train()
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = copy.deepcopy(network.state_dict())
    explainer = Explainer(network)
    explainer(IMAGES, method, target=2)  # finds the layers
    network.head.passes = fails_in
    torch.manual_seed(5)
    rng, failed = torch.get_rng_state(), False
    try:
        explainer(IMAGES, method, target=2)
    except (UserError, RuntimeError):
        failed = True
    passes = 2 if method == "legrad" else 1
    assert failed == (0 < fails_in <= passes)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network.head.weight.grad, torch.ones_like(network.head.weight))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.is_grad_enabled()


class PartlyFrozen(ViT):
    """Runs all but the last block without gradients, as many fine-tuned transformers do."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            patches = self.embed(images).flatten(2).transpose(1, 2) + self.position
            tokens = self.blocks[:-1](torch.cat([self.extra.expand(len(images), -1, -1), patches], dim=1))
        return self.head(self.norm(self.blocks[-1](tokens))[:, 0])


@pytest.mark.parametrize("method", ["attention_relevance", "legrad"])
def test_blocks_that_run_without_gradients(method):
    network, frozen = vit(), PartlyFrozen().eval()
    frozen.load_state_dict(network.state_dict())
    expected = camlab.heatmaps(network, IMAGES, method, target=1)
    torch.testing.assert_close(camlab.heatmaps(frozen, IMAGES, method, target=1), expected)


class Unseen(Attention):
    """Attention whose weights cannot be recorded, since its softmax is written out."""

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).exp()
        return self.proj((weights / weights.sum(dim=-1, keepdim=True) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_block_whose_attention_cannot_be_recorded_is_not_passed_over(index):
    network = vit()
    network.blocks[index].attn = Unseen("fused")
    with pytest.raises(UserError, match="attention layers do not follow one another"):
        camlab.heatmaps(network, IMAGES, "attention_relevance")
    assert Explainer(network).method_for(IMAGES) == "layer_cam_all"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("method", ["attention_relevance", "legrad"])
def test_in_any_grad_mode(mode, method):
    network = vit()
    expected = camlab.heatmaps(network, IMAGES, method, target=1)
    with mode():
        torch.testing.assert_close(camlab.heatmaps(network, IMAGES.clone(), method, target=1), expected)


@pytest.mark.parametrize("method", ["attention_relevance", "legrad"])
def test_half_precision(method):
    network = vit()
    expected = camlab.heatmaps(network, IMAGES, method, target=1)
    half = camlab.heatmaps(network.bfloat16(), IMAGES.bfloat16(), method, target=1)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=0.1, rtol=0)


def test_a_difference_in_one_place_moves_the_map_there():
    network = vit(pool="mean", prefix=1, depth=1)
    with passing(network, IMAGES.device):
        for row, column in ((0, 3), (3, 0), (1, 2)):
            images = IMAGES[:1].clone()
            images[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += 9
            both = Explainer(network).explain(torch.cat([IMAGES[:1], images]), ["hires_cam"], torch.tensor([[0], [0]]))
            change = (both.maps["hires_cam"][0][1, 0] - both.maps["hires_cam"][0][0, 0]).abs()
            assert divmod(int(change.argmax()), 4) == (row, column)


def test_attention_by_hand():
    attention, gradient = torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]]), torch.tensor([[[[2.0, -2.0], [1.0, 1.0]]]])
    # (∇A ⊙ A)⁺ = [1 0; 1 0], so R = 1 + [1 0; 1 0] after one layer and (1 + [1 0; 1 0])² after two
    torch.testing.assert_close(
        maps.attention_relevance([attention], [gradient]), torch.tensor([[[2.0, 0.0], [1.0, 1.0]]])
    )
    torch.testing.assert_close(
        maps.attention_relevance(2 * [attention], 2 * [gradient]), torch.tensor([[[4.0, 0.0], [3.0, 1.0]]])
    )
    torch.testing.assert_close(maps.legrad([gradient, gradient * 0]), torch.tensor([[0.75, 0.25]]))


# ---- what must not be mistaken for a map ----


class Sequence(nn.Module):
    """A transformer whose tokens come first, T×N×D, as torch's encoder has them by default."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(images).flatten(2).permute(2, 0, 1)).mean(dim=0))


def test_tokens_before_the_images_are_no_convolutional_features():
    with pytest.raises(UserError, match="not known how the network's last features are arranged"):
        camlab.heatmaps(Sequence().eval(), IMAGES)


class Exchanged(nn.Module):
    """Convolutions on rows and columns that were exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(self.first(images).transpose(2, 3)).mean(dim=(2, 3)))


def test_exchanged_rows_and_columns_are_not_drawn():
    torch.manual_seed(0)
    survey = Survey(Exchanged().eval(), torch.zeros(1, 3, 32, 32))
    assert "second" not in survey.layouts
    assert survey.layout("first") == Layout("NCHW", (30, 30))


def test_strips_are_not_drawn():
    class Strips(Exchanged):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.second(F.pad(self.first(images).mean(dim=2, keepdim=True), (0, 0, 1, 1))).mean((2, 3)))

    assert set(Survey(Strips().eval(), torch.zeros(1, 3, 32, 32)).layouts) == {"first"}


def test_pieces_of_the_picture_in_the_batch_are_not_drawn():
    class Pieces(Exchanged):
        def forward(self, images: Tensor) -> Tensor:
            pieces = torch.cat(images.chunk(2, dim=3))
            return self.fc(self.second(self.first(pieces)).mean(dim=(2, 3)).unflatten(0, (2, -1)).mean(dim=0))

    with pytest.raises(UserError, match="no layer with a spatial output"):
        camlab.heatmaps(Pieces().eval(), IMAGES)


@pytest.mark.parametrize("count", [1, 2])
def test_scores_of_one_picture_may_be_a_vector(count):
    class Squeezed(Exchanged):
        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.second(self.first(images)).mean(dim=(2, 3))).squeeze()

    torch.manual_seed(0)
    network = Squeezed().eval()
    both = camlab.heatmaps(network, IMAGES, "grad_cam", target=1, normalize="raw")
    torch.testing.assert_close(
        camlab.heatmaps(network, IMAGES[:count], "grad_cam", target=1, normalize="raw"), both[:count]
    )


def test_attention_in_parallel_is_refused():
    class Parallel(ViT):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            return self.head(sum(block(tokens) for block in self.blocks).mean(dim=1))

    network = Parallel(prefix=0, depth=2).eval()
    with pytest.raises(UserError, match="attention layers do not follow one another"):
        camlab.heatmaps(network, IMAGES, "attention_relevance")


@pytest.mark.parametrize("method", ["auto", "legrad", "hires_cam"])
def test_a_transformer_that_runs_in_no_grad(method):
    class Probe(ViT):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                patches = self.embed(images).flatten(2).transpose(1, 2) + self.position
                pooled = self.blocks(patches).mean(dim=1)
            return self.head(pooled)

    torch.manual_seed(0)
    network = Probe(prefix=0, pool="mean").eval()
    plain = ViT(prefix=0, pool="mean").eval()
    plain.load_state_dict(network.state_dict())
    expected = camlab.heatmaps(plain, IMAGES, method, target=1)
    torch.testing.assert_close(camlab.heatmaps(network, IMAGES, method, target=1), expected)


def test_the_sign_of_eigen_cam_does_not_depend_on_the_precision():
    activations = F.layer_norm(torch.randn(6, 8, 8, 16, generator=torch.Generator().manual_seed(0)), (16,))
    activations = activations.permute(0, 3, 1, 2)
    exact, rounded = maps.eigen_cam(activations), maps.eigen_cam(activations.bfloat16())
    assert (F.cosine_similarity(exact.flatten(1), rounded.flatten(1)) > 0.9).all()


def test_finer_scores_of_a_confident_network_are_finite():
    assert maps.finer_scores(torch.tensor([[200.0, 3.0, 2.0, 1.0, 0.0]]), torch.tensor([0])).isfinite().all()


def test_a_relu_that_works_in_place_on_what_is_used_again():
    class InPlace(Exchanged):
        def forward(self, images: Tensor) -> Tensor:
            first = self.first(images)
            features = self.second(F.pad(F.relu(first, inplace=True), (1, 1, 1, 1))) + first
            return self.fc(features.mean(dim=(2, 3)))

    with pytest.raises(UserError, match=r"guided_grad_cam: .* depends on their working in place"):
        camlab.heatmaps(InPlace().eval(), IMAGES, "guided_grad_cam", "second")
