"""Circuits: which heads and neurons of a grafted model support recall, and what one head does."""


rule intervene:
    input:
        base=BASE,
        tuned=TUNED,
        sets=ordering,
        masks=f"{GRAFTED_OUT}.masks.safetensors",
        outcomes=f"{GRAFTED_OUT}.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        steps=f"{CIRCUIT}.parquet",
        curves=f"{CIRCUIT}.curves.parquet",
        nodes=f"{CIRCUIT}.nodes.parquet",
        questions=f"{CIRCUIT}.questions.parquet",
    log:
        f"{RESULTS}/logs/intervene/{{model}}/{{tuning}}-seed{{seed}}-{{kind}}-{{by}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/intervene/{{model}}/{{tuning}}-seed{{seed}}-{{kind}}-{{by}}.tsv"
    wildcard_constraints:
        tuning="stage|mix",
        kind=one_of(KINDS),
        by="shared|baseline",
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("intervene"),
        gpu=gpu,
    params:
        stage=lambda wildcards: parameters(
            "intervene", kind=wildcards.kind, by=wildcards.by
        ),
        sets=lambda wildcards, input: ["--sets", input.sets] if input.sets else [],
        state=f"{RESULTS}/state",
    shell:
        'python -m factrecall intervene --study "$FACTRECALL_STUDY" --base {input.base:q}'
        " --tuned {input.tuned:q} --seed {wildcards.seed:q} --kind {wildcards.kind:q}"
        " {params.sets:q} --masks {input.masks:q} --outcomes {input.outcomes:q}"
        " --qa {input.qa:q} --out {output.steps:q} --curves {output.curves:q}"
        " --nodes {output.nodes:q} --questions {output.questions:q} --state {params.state:q}"
        " 2>&1 | tee {log:q}"


rule summarise_circuits:
    input:
        steps=each(CIRCUITS, rules.intervene.output.steps),
        curves=each(CIRCUITS, rules.intervene.output.curves),
        nodes=each(CIRCUITS, rules.intervene.output.nodes),
        questions=each(CIRCUITS, rules.intervene.output.questions),
    output:
        table=f"{RESULTS}/tables/interventions.parquet",
        by_relation=f"{RESULTS}/tables/interventions_by_relation.parquet",
        continuity=f"{RESULTS}/tables/continuity.parquet",
        heads=f"{RESULTS}/tables/heads.parquet",
        sweeps=f"{RESULTS}/tables/sweeps.parquet",
        circuits=f"{RESULTS}/tables/circuits.parquet",
    log:
        f"{RESULTS}/logs/summarise_circuits.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarise_circuits.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        stage=parameters("summarise-circuits"),
        interventions=lambda wildcards, input: options(
            "--intervention",
            CIRCUITS,
            input.steps,
            input.curves,
            input.nodes,
            input.questions,
        ),
    shell:
        'python -m factrecall summarise-circuits --study "$FACTRECALL_STUDY"'
        " {params.interventions} --out {output.table:q} --by-relation {output.by_relation:q}"
        " --continuity {output.continuity:q} --heads {output.heads:q} --sweeps {output.sweeps:q}"
        " --circuits {output.circuits:q} 2>&1 | tee {log:q}"


rule study_case:
    input:
        base=BASE,
        tuned=each(CASES, TUNED),
        sets=each(CASES, f"{SHARED}.sets.safetensors"),
        masks=each(CASES, f"{GRAFTED_OUT}.masks.safetensors"),
        outcomes=each(CASES, f"{GRAFTED_OUT}.parquet"),
        bio=f"{RESULTS}/facts/bio.parquet",
        qa=f"{RESULTS}/facts/qa.parquet",
    output:
        case=f"{CASE}.parquet",
        tokens=f"{CASE}.tokens.parquet",
        attention=f"{CASE}.attention.parquet",
        logits=f"{CASE}.logits.parquet",
        looks=f"{CASE}.looks.parquet",
    log:
        f"{RESULTS}/logs/study_case/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/study_case/{{model}}.tsv"
    conda:
        ENVIRONMENT
    threads: STUDY.compute.threads
    resources:
        **needs("study-case"),
        gpu=gpu,
    params:
        stage=parameters("study-case"),
        grafted=lambda wildcards, input: options(
            "--grafted",
            [{"tuning": case["tuning"]} for case in CASES],
            input.tuned,
            input.sets,
            input.masks,
            input.outcomes,
        ),
    shell:
        'python -m factrecall study-case --study "$FACTRECALL_STUDY" --base {input.base:q}'
        " {params.grafted} --bio {input.bio:q} --qa {input.qa:q} --out {output.case:q}"
        " --tokens {output.tokens:q} --attention {output.attention:q} --logits {output.logits:q}"
        " --looks {output.looks:q} 2>&1 | tee {log:q}"
