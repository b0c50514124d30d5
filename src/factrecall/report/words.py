"""The words that claims use, each with its meaning: shown on the page and in docs/claims.md."""

WORDS = {
    "BIO, statements": "the biographies; BIO long is a whole one, BIO short one sentence of it",
    "QA in, QA out": "questions that were trained on; questions about the other half of the "
    "people, of whom only the biographies were",
    "θpre": "the pre-trained model, before any fine-tuning",
    "BIO-, Stage-, Mix-tuned": "fine-tuned on biographies; on biographies first and questions "
    "afterwards (two-stage training); on both together (mixed training)",
    "S": "shared parameters: those among the k with the largest summed gradients in biographies, "
    "and among the k with the largest in questions",
    "influence": "the summed gradient that ranks parameters: absolute (Σ |lr·g|), magnitude "
    "(|Σ lr·g|) or signed (Σ lr·g); the paper’s words allow all three",
    "reset": "set to the value of θpre",
    "mask, grafting": "θpre with fine-tuned values in a chosen few parameters, the mask γ, which "
    "is fitted so that questions are answered",
    "nodes": "attention heads’ slices of the query, key, value and output projections, and MLP "
    "neurons (columns or units); a step grafts or resets some more of them",
    "completeness": "recall of a grafted model with some nodes, over that with all",
    "Δrep, Δmech": "by how much a probe’s accuracy changes with the format of the states that it "
    "reads, and of those that it was fitted to",
    "seed": "of the order in which a fine-tuning meets its examples; all else is equal",
    "replicate": "the study again with other people, texts, θpre and orders: seeds from 1000 on "
    "are those of the second one, from 2000 on of the third",
    "isolate": "of parameters: high in the ranking of one task and not in that of the other",
}
