"""The words that claims use, each with its meaning: shown on the page and in docs/claims.md."""

WORDS = {
    "BIO, statements": "the biographies; BIO long is a whole one, BIO short one sentence of it",
    "QA in, QA out": "questions that were trained on; questions about the other half of the "
    "people, of whom only the biographies were trained on",
    "θpre": "the pre-trained model, before any fine-tuning",
    "BIO-, Stage-, Mix-tuned": "fine-tuned on biographies; on biographies first and questions "
    "afterwards (two-stage training); on both together (mixed training)",
    "S": "shared parameters: those among the k of largest influence for biographies and also among "
    "the k of largest influence for questions; k is a set number",
    "influence": "the summed gradient by which parameters are ranked: absolute (Σ |lr·g|), "
    "magnitude (|Σ lr·g|) or signed (Σ lr·g), all compatible with the paper’s words; adam (the "
    "summed parts of AdamW’s updates, without momentum) is this project’s addition",
    "isolate": "parameters ranked highly by one task and not by the other",
    "reset": "set to the value of θpre",
    "mask, grafting": "a mask γ is a small set of parameters, fitted so that questions are "
    "answered; grafting gives θpre the fine-tuned values of the mask",
    "chosen mask": "the smallest mask that recovers enough of the fine-tuned accuracy on the "
    "questions it was fitted to",
    "held-out people": "people to whose questions no mask was fitted",
    "nodes": "parts of a grafted model: an attention head’s slice of one projection (query, key, "
    "value or output; called a head here), or an MLP neuron (column or unit). Each step grafts or "
    "resets some more of them, in the order of a ranking",
    "completeness": "accuracy of a grafted model in which only some nodes of a kind are grafted, "
    "over that with all of them; all else of the mask stays grafted",
    "continuity": "of a fact that is right at any step: the share of right steps between its first "
    "and last right one (overall), the longest run of these (longest), and whether the last step "
    "is right (retained)",
    "Δrep, Δmech": "Δrep is the difference in accuracy of a QA probe between QA states and BIO "
    "states; Δmech that between the QA probe and the BIO probe, on QA states or, where said, on "
    "BIO states",
    "gradient agreement": "the cosine of the gradients of a fact’s statement and question, less "
    "that of the statement and other people’s questions on the same relation",
    "seed": "sets the order in which a fine-tuning meets its examples; nothing else differs "
    "between the seeds of a replicate",
    "replicate": "a repetition of the whole study with other people, texts, θpre and orders; seeds "
    "from 1000 on belong to the second, from 2000 on to the third",
}
