"""The synthetic individuals, their biographies and questions on them."""


use rule stage as make_facts with:
    output:
        individuals=INDIVIDUALS,
        bio=BIO,
        qa=QA,
    log:
        f"{LOGS}/make_facts/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/make_facts/seed{{seed}}.tsv"
    params:
        **job("make-facts"),
        own=OWN_FILES,
