"""With real vectors, the hybrid search is worth having: on public questions, and for articles."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from app.ranking import fold, ndcg, recall
from bench.mixed import mixed
from kb.collection import Collection, Passage, read
from kb.collection_kb import build
from kb.embedding import Embedder, open_embedder
from kb.search import KnowledgeBase, Mode
from kb.settings import KbSettings
from tests.finetune.shared import shared

pytestmark = pytest.mark.real

SETTINGS = KbSettings()
PASSAGES = 40
"""Of a collection, so that embedding them takes seconds."""
SUBJECTS = (
    *(("keepers", "守塔人"), ("lamps", "灯具"), ("fog signals", "雾号"), ("boats", "船只")),
    *(("stores", "仓库"), ("fuel", "燃料"), ("visitors", "访客"), ("logbooks", "航海日志")),
    *(("storms", "风暴"), ("wages", "工资"), ("dwellings", "住所"), ("radio", "无线电")),
    *(("repairs", "维修"), ("training", "培训"), ("leave", "休假"), ("penalties", "处罚")),
    *(("inspections", "检查"), ("harbours", "港口"), ("buoys", "浮标"), ("pilots", "引航员")),
)
ENGLISH = (
    "Article {n} The authority responsible for {it} keeps a register of {it}, reports on {it} to"
    " the council of the coast before the end of each quarter, and answers in writing, within"
    " thirty days, every question about {it} that a keeper has put to it in due form."
)
CHINESE = (
    "第{n}条 主管{it}的机关应当建立{it}登记簿，于每季度末以前向海岸委员会报告有关{it}的情况，"
    "并对守塔人或者船东依法提出的有关{it}的每一项询问，自收到之日起三十日以内作出书面答复。"
)
NUMERALS = "一二三四五六七八九十"


def numeral(n: int) -> str:
    tens, ones = divmod(n, 10)
    digit = NUMERALS[ones - 1] if ones else ""
    return f"{NUMERALS[tens - 1] if tens > 1 else ''}十{digit}" if tens else digit


@pytest.fixture(scope="module")
def embedder(models_home: Path) -> Embedder:
    return open_embedder(SETTINGS, models_home)


def opened(passages: tuple[Passage, ...], embedder: Embedder, home: Path) -> KnowledgeBase:
    digest = hashlib.sha256("".join(p.text for p in passages).encode()).hexdigest()
    folder = build(Collection(passages, (), digest), embedder, SETTINGS, home, lambda _: None)
    return KnowledgeBase(folder, embedder, SETTINGS)


@pytest.mark.parametrize("pair", ["en-en", "zh-zh"])
def test_hybrid_is_never_far_below_its_better_half(
    pair: str, embedder: Embedder, tmp_path: Path
) -> None:
    whole = read(shared(f"xquad_en_zh/{pair}"))
    passages = whole.passages[:PASSAGES]
    ids = {p.id for p in passages}
    queries = [q for q in whole.queries if ids & q.relevance.keys()]
    vectors = embedder.queries([query.text for query in queries])
    kb = opened(passages, embedder, tmp_path)

    def quality(mode: Mode) -> float:
        gains = []
        for query, vector in zip(queries, vectors, strict=True):
            hits = kb.search_vector(query.text, vector, 30, mode=mode).hits
            gains.append(ndcg(fold(hit.filename for hit in hits), query.relevance))
        return float(np.mean(gains))

    hybrid, dense, lexical = quality("hybrid"), quality("dense"), quality("lexical")
    kb.close()
    assert len(queries) > 150 and min(dense, lexical) > 0.9, "the halves work, and there is data"
    assert hybrid >= max(dense, lexical) - 0.005, (hybrid, dense, lexical)


@pytest.mark.parametrize(
    ("article", "law", "question"),
    [
        (ENGLISH, "Lighthouse Act", "What does Article {n} of the Lighthouse Act say?"),
        (ENGLISH, "Lighthouse Act", "Lighthouse Act § {n}"),
        (CHINESE, "灯塔管理法", "灯塔管理法第{zh}条是怎么规定的？"),
        (CHINESE, "灯塔管理法", "《灯塔管理法》第{n}条"),
    ],
    ids=["english", "english-sign", "chinese", "chinese-digits"],
)
def test_an_article_asked_for_by_its_number_is_found_first(
    article: str, law: str, question: str, embedder: Embedder, tmp_path: Path
) -> None:
    chinese = article is CHINESE
    articles = [
        article.format(n=numeral(n) if chinese else n, it=subject[chinese])
        for n, subject in enumerate(SUBJECTS, start=1)
    ]
    kb = opened((Passage("law", law, "\n\n".join(articles)),), embedder, tmp_path)
    for n, wanted in enumerate(articles, start=1):
        first = kb.search(question.format(n=n, zh=numeral(n)), 3).hits[0]
        assert first.chunk.text == wanted, question.format(n=n, zh=numeral(n))
    kb.close()


def test_a_question_finds_what_stands_in_the_other_language_beside_passages_of_its_own(
    embedder: Embedder, tmp_path: Path
) -> None:
    """Half of the paragraphs in English, the others in Chinese; as they come, vectors find 5% of
    the English ones for Chinese questions."""
    pairs = dict(mixed(shared("xquad_en_zh/en-en").parent))
    kb = opened(pairs["en-en"].passages, embedder, tmp_path)
    found = {}
    for pair, collection in pairs.items():
        queries = collection.queries[::10]
        ranked = [fold(hit.filename for hit in kb.search(q.text, 30).hits) for q in queries]
        shares = [recall(r, q.relevance) for r, q in zip(ranked, queries, strict=True)]
        found[pair] = float(np.mean(shares))
    kb.close()
    assert min(found["en-en"], found["zh-zh"]) > 0.97 and len(found) == 4, found
    assert min(found["en-zh"], found["zh-en"]) > 0.9, found
