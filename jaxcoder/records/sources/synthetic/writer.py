"""The notes of a contact, and where in them its coded conditions are mentioned."""

import datetime
from collections.abc import Sequence

from jaxcoder.records.schema import Evidence, Note
from jaxcoder.records.sources.synthetic.catalogue import Catalogue
from jaxcoder.records.sources.synthetic.dice import Dice
from jaxcoder.records.sources.synthetic.entries import CONTEXTS, ConditionEntry, Phrase
from jaxcoder.records.sources.synthetic.patient import Presence, Visit
from jaxcoder.records.sources.synthetic.results import stamp

_SEPARATORS = (", ", "; ", ", ")
_AGAIN = 0.35  # chance that a later note mentions a secondary condition once more
_SHARES = {
    "admission": 0.4,
    "progress": 0.7,
    "discharge": 1.0,
    "outpatient": 1.0,
}  # of the words, up to this note


class _Text:
    """A note that grows by sentences."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.words = 0
        self.spans: list[tuple[str, int, int]] = []

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def mention(self, text: str, code: str) -> None:
        """Adds a mention; with a code when it is evidence for it."""
        if code:
            self.spans.append((code, self.length, self.length + len(text)))
        self.add(text)
        self.words += text.count(" ") + 1


class Writer:
    """Writes notes from the phrases of the catalogue."""

    def __init__(self, catalogue: Catalogue, note_words: int, distractors: float) -> None:
        """Prepares to write.

        Args:
          catalogue: conditions and phrases.
          note_words: mean number of words of all notes of a contact.
          distractors: mean number of mentions a contact of conditions that are not present.
        """
        self._note_words, self._distractors = note_words, distractors
        self._phrases: dict[tuple[str, str, str], Sequence[Phrase]] = {}
        self._catalogue = catalogue
        self._by_context = {
            context: [
                condition for condition in catalogue.conditions if context in condition.contexts
            ]
            for context in CONTEXTS
        }

    def write(self, dice: Dice, visit: Visit) -> tuple[tuple[Note, ...], tuple[Evidence, ...]]:
        """The notes in time order, and the evidence in the order of the text.

        Every condition that is to show in the notes is mentioned at least once. Evidence is that of
        coded conditions.
        """
        primary = visit.present[0]
        chronic: list[Presence] = []
        acute: list[Presence] = []
        for presence in visit.present[1:]:
            if presence.shows_in == "notes":
                (chronic if presence.condition.chronic else acute).append(presence)
        absent = self._absent(dice, visit)
        kinds = ("admission", "progress", "discharge") if visit.admitted else ("outpatient",)
        stay = (visit.end - visit.start) / max(1, len(kinds) - 1)
        words = self._note_words * dice.between(0.75, 1.25)
        notes: list[Note] = []
        evidence: list[Evidence] = []
        written = 0
        for number, kind in enumerate(kinds):
            text = _Text()
            if number == 0:
                self._sentence(dice, text, "reason", visit, [primary])
                self._sentence(dice, text, "known", visit, chronic)
            if number == 1 or len(kinds) == 1:
                self._sentence(dice, text, "found", visit, acute)
            if number == 2:
                again = [one for one in chronic + acute if dice.random() < _AGAIN]
                self._sentence(dice, text, "conclusion", visit, [primary])
                self._sentence(dice, text, "again", visit, again)
            last = number == len(kinds) - 1
            for context, condition in absent if last else absent[: (len(absent) + 1) // 2]:
                phrase = dice.pick(self._slot(context, "", visit.specialty.name))
                self._mentions(dice, text, phrase, visit, [(dice.weighted(*_pair(condition)), "")])
            absent = [] if last else absent[(len(absent) + 1) // 2 :]
            self._fill(dice, text, kind, visit, words * _SHARES[kind] - written)
            written += text.words
            time = (
                visit.start + datetime.timedelta(minutes=30)
                if number == 0
                else visit.start + number * stay
            )
            notes.append(Note("".join(text.parts), kind, stamp(min(time, visit.end))))
            for code, start, end in text.spans:
                evidence.append(Evidence(code, number, start, end, len(evidence)))
        return tuple(notes), tuple(evidence)

    def _absent(self, dice: Dice, visit: Visit) -> list[tuple[str, ConditionEntry]]:
        """Conditions to be mentioned although they are not present, each with its context."""
        taken = {presence.condition.number for presence in visit.present}
        chosen = []
        for _ in range(dice.count(self._distractors)):
            context = dice.pick(CONTEXTS)
            condition = dice.pick(self._by_context[context]) if self._by_context[context] else None
            if condition is None or condition.number in taken or condition.family in visit.families:
                continue
            # Somebody in the family may be of any sex and age; the patient's own conditions must
            # suit.
            if context != "family" and not condition.suits(visit.sex, visit.age):
                continue
            taken.add(condition.number)
            chosen.append((context, condition))
        return chosen

    def _sentence(
        self, dice: Dice, text: _Text, slot: str, visit: Visit, present: list[Presence]
    ) -> None:
        if present:
            phrase = dice.pick(self._slot(slot, "", visit.specialty.name))
            mentions = [
                (
                    dice.weighted(one.code.wordings.texts, one.code.wordings.cumulative),
                    one.code.code if one.coded else "",
                )
                for one in present
            ]
            self._mentions(dice, text, phrase, visit, mentions)

    def _mentions(
        self, dice: Dice, text: _Text, phrase: Phrase, visit: Visit, mentions: list[tuple[str, str]]
    ) -> None:
        before, after = self._filled(dice, phrase, visit)
        text.add(f" {before}" if text.length else before)
        separator = dice.pick(_SEPARATORS)
        for number, (mention, code) in enumerate(mentions):
            if number:
                text.add(
                    " and " if number == len(mentions) - 1 and separator == ", " else separator
                )
            elif not before:
                mention = mention[0].upper() + mention[1:]
            text.mention(mention, code)
        text.add(after)
        text.words += phrase.words - 1

    def _fill(self, dice: Dice, text: _Text, kind: str, visit: Visit, words: float) -> None:
        """Adds sentences that mention no condition until there are enough words.

        None comes twice before all have come once.
        """
        phrases = self._slot("filler", kind, visit.specialty.name)
        order: list[int] = []
        while text.words < words:
            order = order or list(range(len(phrases)))
            place = dice.below(len(order))
            order[place], order[-1] = order[-1], order[place]
            phrase = phrases[order.pop()]
            before, _ = self._filled(dice, phrase, visit)
            text.add(f" {before}" if text.length else before)
            text.words += phrase.words

    def _slot(self, slot: str, note: str, specialty: str) -> Sequence[Phrase]:
        """A slot's phrases: those of the specialty, and those of any."""
        key = (slot, note, specialty)
        if key not in self._phrases:
            known = self._catalogue.phrases
            self._phrases[key] = (*known.get(key, ()), *known[slot, note, ""])
        return self._phrases[key]

    def _filled(self, dice: Dice, phrase: Phrase, visit: Visit) -> tuple[str, str]:
        before, after = phrase.before, phrase.after or ""
        for place in phrase.places:
            value = _place(dice, place, visit)
            before, after = (
                before.replace(f"{{{place}}}", value),
                after.replace(f"{{{place}}}", value),
            )
        return before, after


def _pair(condition: ConditionEntry) -> tuple[Sequence[str], Sequence[float]]:
    return condition.absent.texts, condition.absent.cumulative


def _place(dice: Dice, place: str, visit: Visit) -> str:
    """What stands in a place of a phrase; measurements are normal, or they would be findings."""
    if place == "age":
        if visit.age < 1:
            days = int(visit.age * 365.25)
            return f"{days} days old" if days < 60 else f"{days // 30} months old"
        return f"{int(visit.age)} years old"
    if place == "person":
        if visit.age < 1:
            return "baby girl" if visit.sex == "F" else "baby boy"
        if visit.age < 18:
            return "girl" if visit.sex == "F" else "boy"
        return "woman" if visit.sex == "F" else "man"
    if place == "year":
        return str(visit.start.year - 1 - dice.below(max(1, min(20, int(visit.age)))))
    if place == "weeks":
        return str(2 + dice.below(11))
    if place == "bp":
        return f"{112 + dice.below(24)}/{64 + dice.below(20)}"
    if place == "pulse":
        return str(62 + dice.below(24))
    if place == "temp":
        return f"36.{4 + dice.below(6)}"
    return f"{96 + dice.below(4)} %"
