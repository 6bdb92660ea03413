"""Questions and passages of two languages, made comparable. Knows vectors, and no index.

A multilingual embedder lays texts of one language side by side, whatever they say: in a knowledge
base of both, a Chinese question finds Chinese passages first, and hardly ever the English one that
answers it. What a language adds to a vector is measured on questions that stand here in both; a
question is moved to the passages' language before it is compared, and what counts is how far a
passage stands above the middle of its language (docs/decisions/016-across-languages.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Sides = npt.NDArray[np.bool_]
"""True for what is Chinese."""

# The same questions in both, so that they differ in nothing but the language: about law, medicine,
# work, machines and the world, as people ask of handbooks.
_ASKED = (
    ("What is the deadline for submitting the form?", "提交表格的截止日期是什么时候？"),
    ("Who is responsible for signing the contract?", "谁负责签署合同？"),
    ("How do I reset my password?", "怎样重置密码？"),
    ("When was the company founded?", "公司是哪一年成立的？"),
    ("Where can I find the opening hours?", "在哪里可以查到营业时间？"),
    ("Why was the application rejected?", "申请为什么被拒绝？"),
    ("Which documents are needed for registration?", "登记需要哪些材料？"),
    ("How much does the service cost?", "这项服务要多少钱？"),
    ("What are the symptoms of the disease?", "这种疾病有哪些症状？"),
    ("Can an employee work from home?", "员工可以在家办公吗？"),
    ("How long does the treatment take?", "治疗需要多长时间？"),
    ("What happens if a payment is late?", "逾期付款会怎么样？"),
    ("Who discovered this method?", "这种方法是谁发现的？"),
    ("Is it allowed to bring a guest?", "可以带客人来吗？"),
    ("How many people live in the city?", "这座城市有多少人口？"),
    ("What is the penalty for breaking the rule?", "违反规定会受到什么处罚？"),
    ("Which medicine should be taken first?", "应该先吃哪种药？"),
    ("What does the law say about overtime?", "法律对加班是怎么规定的？"),
    ("How is the temperature measured?", "温度是如何测量的？"),
    ("When should I call a doctor?", "什么时候应该去看医生？"),
    ("What is the difference between the two procedures?", "这两种程序有什么区别？"),
    ("Who may inspect the records?", "谁可以查阅档案？"),
    ("How can I cancel my order?", "怎么取消订单？"),
    ("What causes the error message?", "出现错误提示的原因是什么？"),
    ("In which year did the war end?", "战争在哪一年结束？"),
    ("What is the name of the river?", "这条河叫什么名字？"),
    ("Does the insurance cover dental care?", "保险包括牙科治疗吗？"),
    ("How often must the filter be changed?", "滤芯多久要更换一次？"),
    ("What is the maximum dose for children?", "儿童的最大剂量是多少？"),
    ("Which country won the match?", "哪个国家赢得了比赛？"),
    ("What should be done before starting the machine?", "启动机器之前应该做什么？"),
    ("Where is the headquarters located?", "总部设在哪里？"),
)
_KNOWN_BEFORE = 20
"""So many passages' worth is what is expected of a language's middle before any is seen."""
_MOVED = 0.5
"""How much of the other language is put into a question after its own is taken out. With all of it,
passages that are near to every question come near to this one too."""


class Encodes(Protocol):
    """What is needed of an embedder."""

    def queries(self, texts: Sequence[str]) -> Vector: ...

    def passages(self, texts: Sequence[str]) -> Vector: ...


class Products(Protocol):
    """What is needed of an index: inner products with its passages' vectors, by id."""

    def search(self, query: Vector, k: int) -> list[tuple[int, float]]: ...

    def cosines(self, query: Vector, ids: Sequence[int]) -> dict[int, float]: ...


@dataclass(frozen=True, slots=True)
class Languages:
    """What a language adds to an embedder's vectors.

    `questions` and `passages` have shape (2, dimensions): the middle of such texts, first of what
    is not Chinese, then of what is. Along `axis` the latter stand above `edge`.
    """

    questions: Vector
    passages: Vector
    axis: Vector
    edge: float

    def sides(self, vectors: Vector) -> Sides:
        """Which of these passages' vectors, shape (n, dimensions), are of Chinese text."""
        return np.asarray(vectors @ self.axis > self.edge)


def measured(embedder: Encodes) -> Languages | None:
    """None where the vectors do not tell the languages apart: then there is nothing to take out."""
    texts = [text for side in zip(*_ASKED, strict=True) for text in side]
    questions, passages = embedder.queries(texts), embedder.passages(texts)
    half = len(_ASKED)
    middles = [np.stack([v[:half].mean(0), v[half:].mean(0)]) for v in (questions, passages)]
    apart = middles[1][1] - middles[1][0]
    length = float(np.linalg.norm(apart))
    if length < 1e-6:
        return None
    axis = apart / length
    edge = float(middles[1].mean(0) @ axis)
    found = Languages(middles[0], middles[1], axis, edge)
    sides = found.sides(passages)
    return found if sides[half:].all() and not sides[:half].any() else None


@dataclass(frozen=True, slots=True)
class Way:
    """How a question is compared with passages of one language: `scale` times the inner product
    with `vector`, and `shift`. That is the cosine itself for the question's own language."""

    chinese: bool
    vector: Vector
    scale: float = 1.0
    shift: float = 0.0


class Balance:
    """How many passages a knowledge base has of each language, and their middle."""

    def __init__(self, languages: Languages) -> None:
        self.languages = languages
        self._count = np.zeros(2, np.int64)
        self._sum = np.zeros(languages.passages.shape, np.float64)

    def add(self, vectors: Vector) -> None:
        self._take(vectors, 1)

    def remove(self, vectors: Vector) -> None:
        self._take(vectors, -1)

    def _take(self, vectors: Vector, sign: int) -> None:
        chinese = self.languages.sides(vectors)
        whole, part = vectors.sum(0), vectors[chinese].sum(0)
        self._sum += sign * np.stack([whole - part, part])
        self._count += sign * np.asarray([len(vectors) - chinese.sum(), chinese.sum()])

    def ways(self, question: Vector, chinese: bool) -> list[Way]:
        """One for each language that has passages, the question's own first."""
        mine = int(chinese)
        there = [side for side in (mine, 1 - mine) if self._count[side] > 0]
        if there in ([], [mine]):
            return [Way(chinese, question)]
        known = self.languages
        middles = self._sum + _KNOWN_BEFORE * known.passages
        middles /= (self._count + _KNOWN_BEFORE)[:, None]
        # Unit vectors: how far they lie from their middle.
        spread = np.sqrt(np.maximum(1.0 - (middles**2).sum(1), 1e-6))
        moved = question - known.questions[mine] + _MOVED * known.questions[1 - mine]
        scale = float(spread[mine] / spread[1 - mine])
        shift = float(middles[mine] @ question - scale * (middles[1 - mine] @ moved))
        other = Way(not chinese, moved, scale, shift)
        return [Way(chinese, question), other] if mine in there else [other]


class Comparison:
    """A question beside the passages of an index, on the ways that lead to them. Scores are cosines
    that can be compared across languages, by id."""

    def __init__(self, index: Products, ways: Sequence[Way], languages: Languages | None) -> None:
        self._index = index
        self._ways = ways
        # Where there is one way, all passages are on it.
        self._languages = languages if len(ways) > 1 else None
        self.apart: set[int] = set()
        """Of the passages scored so far, those in another language than the question, where there
        are also some in its own."""

    def nearest(self, n: int) -> dict[int, float]:
        """The `n` nearest passages on each way."""
        found: dict[int, float] = {}
        for way in self._ways:
            products = dict(self._index.search(way.vector, n))
            found |= self._scored(way, {i: products[i] for i in self._on(way, list(products))})
        return found

    def of(self, ids: Sequence[int]) -> dict[int, float]:
        """The scores of these passages; one that is not held is left out."""
        found: dict[int, float] = {}
        for way in self._ways:
            found |= self._scored(way, self._index.cosines(way.vector, self._on(way, ids)))
        return found

    def _scored(self, way: Way, products: dict[int, float]) -> dict[int, float]:
        if way is not self._ways[0]:
            self.apart |= products.keys()
        return {i: way.scale * product + way.shift for i, product in products.items()}

    def _on(self, way: Way, ids: Sequence[int]) -> Sequence[int]:
        """Those of the passages that are in the way's language."""
        if self._languages is None:
            return ids
        along = self._index.cosines(self._languages.axis, ids)
        return [i for i, at in along.items() if (at > self._languages.edge) == way.chinese]
