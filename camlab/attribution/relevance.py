"""Compute the maps of the attention methods from a recorded pass, and read out the cells of the grid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from camlab import maps
from camlab.attribution.attention_pass import CUT, AttentionPass
from camlab.attribution.classifier import Classifier
from camlab.attribution.hooks import replaced
from camlab.attribution.layouts import Layout
from camlab.errors import UserError


def relevance_maps(passed: AttentionPass, sign: int) -> Tensor:
    """Attention relevance of each cell for what the class score is computed from, N×R×h×w.

    The score is computed from the class token, from the mean of the tokens, or from attention that pools them. What it
    is computed from is found by the gradient: relevance is averaged over the tokens that the score depends on at the
    end. Each token's relevance for itself (R = 1 at the start) is left out.
    """
    ends = _ends(passed)
    ranks = []
    for score in _scores(passed):
        *gradients, of_ends = torch.autograd.grad(score, [*passed.weights, ends], retain_graph=True, allow_unused=True)
        relevance = maps.attention_relevance(
            [weights.detach() for weights in passed.weights], [sign * gradient for gradient in _uncut(gradients)]
        )
        relevance = relevance - torch.eye(relevance.shape[-1], device=relevance.device)
        readers = _readers(passed, of_ends, sign)
        with torch.autocast(relevance.device.type, enabled=False):
            read = readers @ relevance + (readers if passed.pooling is not None else 0)
        ranks.append(_cells(read[:, 0], passed.layout))
    return torch.stack(ranks, dim=1)


def _ends(passed: AttentionPass) -> Tensor:
    """What the scores are computed from: the pooling's attention, or the last tokens on which they depend.

    Raises:
        UserError: No score depends on tokens behind the last attention.
    """
    if passed.pooling is not None:
        return passed.pooling
    behind = [output.tokens for output in passed.outputs if output.end == len(passed.weights)]
    with torch.enable_grad():
        score = passed.logits.gather(1, passed.class_idx).sum()
    for tokens in reversed(behind):
        (gradient,) = torch.autograd.grad(score, tokens, retain_graph=True, allow_unused=True)
        if gradient is not None and gradient.any():
            return tokens
    raise UserError(
        "attention_relevance: no class score depends on the tokens (all gradients are zero). Are the weights of the"
        " last layer zero?"
    )


def _readers(passed: AttentionPass, gradients: Tensor, sign: int) -> Tensor:
    """Weight of each token in what the score is computed from, N×1×T.

    Args:
        passed: The pass.
        gradients: Gradient of the score with respect to the pooling's attention, or else to the last tokens.
        sign: -1 for counterfactuals.
    """
    if passed.pooling is not None:
        return (passed.pooling.detach().float() * sign * gradients.float()).relu().mean(dim=1)
    counted = (gradients != 0).any(dim=2).float()[:, None]
    return counted / counted.sum(dim=2, keepdim=True).clamp_min(1)


def legrad_maps(classifier: Classifier, passed: AttentionPass, sign: int) -> Tensor:
    """Maps of LeGrad, N×R×h×w.

    The score s^l of layer l is computed by a second pass in which the output of the last layer is replaced by the
    outputs of all layers, one behind the other in the batch.
    """
    blocks = passed.blocks()
    if not all(block.tokens.requires_grad for block in blocks):
        raise UserError(CUT)
    last = dict(classifier.network.named_modules())[blocks[-1].name]
    outputs = torch.cat([block.tokens for block in blocks]).detach().requires_grad_()

    def of_all_layers(_: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # for the rest of the pass; `no_grad` restores the mode
        return outputs.clone()

    with torch.no_grad(), replaced(last, of_all_layers):
        logits = classifier.logits(passed.images, rows=len(outputs))
    if not logits.requires_grad:  # the network runs its blocks in `no_grad`, which has undone what the hook has set
        with torch.enable_grad(), replaced(last, of_all_layers):
            logits = classifier.logits(passed.images, rows=len(outputs))
    by_layer = logits.unflatten(0, (len(blocks), -1))
    ranks = []
    for classes in passed.class_idx.unbind(1):
        with torch.enable_grad():
            score = by_layer.gather(2, classes.expand(len(blocks), -1)[:, :, None]).sum()
        (of_outputs,) = torch.autograd.grad(score, outputs, retain_graph=True)
        found = [
            torch.autograd.grad(block.tokens, weights, of_output, retain_graph=True, allow_unused=True)[0]
            for block, weights, of_output in zip(blocks, passed.weights, of_outputs.chunk(len(blocks)), strict=True)
        ]
        gradients = [sign * gradient for gradient in _uncut(found)]
        if not any(gradient.any() for gradient in gradients):
            raise UserError("legrad: no class score depends on the attention (all gradients are zero).")
        ranks.append(_cells(maps.legrad(gradients), passed.layout))
    return torch.stack(ranks, dim=1)


def _uncut(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients of attention weights, all of which the scores are computed from.

    Raises:
        UserError: A gradient is missing.
    """
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < len(gradients):
        raise UserError(CUT)
    return found


def _scores(passed: AttentionPass) -> list[Tensor]:
    """The sum of the class scores of the images, for each of the R classes."""
    with torch.enable_grad():
        return list(passed.logits.gather(1, passed.class_idx).sum(dim=0))


def _cells(relevance_NT: Tensor, layout: Layout) -> Tensor:
    """The relevance of the grid's tokens, N×h×w."""
    return layout.to_map(relevance_NT[:, :, None])[:, 0]
