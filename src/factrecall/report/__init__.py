"""The report: what a study found, as figures, tables and one self-contained page.

`summaries` condenses the table of recall, `verdict` holds the paper's claim against it,
`published` knows the paper's own numbers. `measures` condenses the tables on shared parameters,
`claims` holds what the paper says of them against these. `figures` draws with the look of
`style`; `page` writes the report from all of it. Nothing here computes with a model.
"""
