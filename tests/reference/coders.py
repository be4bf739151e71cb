"""PLM-ICD and PLM-CA in PyTorch, written from their formulas: a document at a time, so that there
is no padding and no mask; and the same weights in jaxcoder's tree."""

import numpy as np
import torch
from transformers import BertConfig, BertModel

torch.set_num_threads(1)  # products as small as these took 14 times as long on two busy cores


class Laat(torch.nn.Module):
    """The head of PLM-ICD (Huang et al., 2022, arXiv:2207.05289), with h_t the state of token t.

    z_t = tanh(W1 h_t);  a_lt = softmax_t(w2_l · z_t);  v_l = Σ_t a_lt h_t
    logit_l = w3_l · v_l + b_l
    """

    def __init__(self, width, inner, labels):
        super().__init__()
        self.projection = torch.nn.Linear(width, inner, bias=False)
        self.query = torch.nn.Linear(inner, labels, bias=False)
        self.output = torch.nn.Linear(width, labels)

    def forward(self, h_TxD):
        z_TxP = torch.tanh(self.projection(h_TxD))
        a_LxT = torch.softmax(self.query(z_TxP).T, dim=-1)
        v_LxD = a_LxT @ h_TxD
        return (self.output.weight * v_LxD).sum(-1) + self.output.bias


class Cross(torch.nn.Module):
    """The head of PLM-CA (Edin et al., 2024, arXiv:2406.08958).

    k_t = Wk h_t;  v_t = Wv h_t + bv;  a_lt = softmax_t(e_l · k_t)
    logit_l = w_o · LayerNorm(Σ_t a_lt v_t) + b_o
    """

    def __init__(self, width, inner, labels):
        super().__init__()
        self.key = torch.nn.Linear(width, inner, bias=False)
        self.value = torch.nn.Linear(width, inner)
        self.query = torch.nn.Linear(inner, labels, bias=False)
        self.norm = torch.nn.LayerNorm(inner)
        self.output = torch.nn.Linear(inner, 1)

    def forward(self, h_TxD):
        a_LxT = torch.softmax(self.query.weight @ self.key(h_TxD).T, dim=-1)
        return self.output(self.norm(a_LxT @ self.value(h_TxD)))[:, 0]


HEADS = {"laat": Laat, "cross": Cross}


class Coder(torch.nn.Module):
    """BERT over windows of a document that see only themselves, and a head over all its tokens."""

    def __init__(self, options):
        super().__init__()
        encoder, head = options.encoder, options.head
        self.window = encoder.window
        config = BertConfig(
            vocab_size=encoder.vocab_size,
            hidden_size=encoder.width,
            num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads,
            intermediate_size=encoder.feedforward,
            max_position_embeddings=encoder.window,
            type_vocab_size=encoder.token_types,
            layer_norm_eps=encoder.norm_epsilon,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = HEADS[head.kind](encoder.width, head.width or encoder.width, head.num_labels)

    def forward(self, tokens_T):
        windows = [self.encoder(window[None])[0][0] for window in tokens_T.split(self.window)]
        return self.head(torch.cat(windows))


def head_weights(params, labels):
    """A head's tree as a state dict, without the rows that pad the label tables."""
    weights = {"query.weight": params["query"][:labels]}
    for name in ("projection", "key", "value"):
        if name in params:
            weights[f"{name}.weight"] = params[name]["kernel"].T
    if "projection" in params:
        weights["output.weight"] = params["output"][:labels]
        weights["output.bias"] = params["bias"][:labels]
    else:
        weights["value.bias"] = params["value"]["bias"]
        weights["norm.weight"], weights["norm.bias"] = params["norm_scale"], params["norm_bias"]
        weights["output.weight"], weights["output.bias"] = params["output"][None], params["bias"]
    return tensors(weights)


def coder_weights(params, options):
    """A coder's tree as a state dict."""
    embedding, layers = params["encoder"]["embedding"], params["encoder"]["layers"]
    width = options.encoder.width
    weights = {
        "embeddings.word_embeddings.weight": embedding["word"][: options.encoder.vocab_size],
        "embeddings.position_embeddings.weight": embedding["position"],
        "embeddings.token_type_embeddings.weight": embedding["token_type"],
        "embeddings.LayerNorm.weight": embedding["norm"]["scale"],
        "embeddings.LayerNorm.bias": embedding["norm"]["bias"],
    }
    for number in range(options.encoder.layers):
        of_layer = f"encoder.layer.{number}"
        for ours, theirs in (
            ("query", "attention.self.query"),
            ("key", "attention.self.key"),
            ("value", "attention.self.value"),
            ("output", "attention.output.dense"),
        ):
            part = layers["attention"][ours]
            kernel, bias = part["kernel"][number], part["bias"][number]  # heads are one axis there
            rows = width if ours != "output" else kernel.shape[0] * kernel.shape[1]
            weights[f"{of_layer}.{theirs}.weight"] = kernel.reshape(rows, -1).T
            weights[f"{of_layer}.{theirs}.bias"] = bias.reshape(-1)
        for ours, theirs in (("feedforward_in", "intermediate"), ("feedforward_out", "output")):
            weights[f"{of_layer}.{theirs}.dense.weight"] = layers[ours]["kernel"][number].T
            weights[f"{of_layer}.{theirs}.dense.bias"] = layers[ours]["bias"][number]
        for ours, theirs in (("attention_norm", "attention.output"), ("output_norm", "output")):
            weights[f"{of_layer}.{theirs}.LayerNorm.weight"] = layers[ours]["scale"][number]
            weights[f"{of_layer}.{theirs}.LayerNorm.bias"] = layers[ours]["bias"][number]
    head = head_weights(params["head"], options.head.num_labels)
    return {
        **{f"encoder.{name}": value for name, value in tensors(weights).items()},
        **{f"head.{name}": value for name, value in head.items()},
    }


def tensors(arrays):
    return {name: torch.tensor(np.array(array)) for name, array in arrays.items()}
