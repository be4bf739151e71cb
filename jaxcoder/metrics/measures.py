"""Names of what is known of a document, in the order in which the devices give it."""

RANKING = (
    *("recall_at_5", "recall_at_10", "recall_at_15"),
    *("precision_at_5", "precision_at_8", "precision_at_15"),
    *("r_precision", "map"),
)
"""How high its gold codes stand among all codes, see `ranking.ranking_measures`."""

OUTCOME_COUNTS = ("gold", "gold_outside", "predicted", "hits")
"""Gold codes, those of them outside the label space, predicted codes, predictions that are gold."""

OUTCOME_MEASURES = (*RANKING, "loss", "confidence")
"""Measures of a document. `confidence` is the log of the probability that its predicted set is
exactly its gold set in the label space, if labels were independent."""
