"""Which of an owner's accounts of a provider is to be used. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from app.linked_accounts.store import LinkedAccount


class Answer(Enum):
    """What somebody who needs an account of a provider has to do."""

    READY = "ready"
    CONNECT = "connect"
    REPAIR = "repair"
    CHOOSE = "choose"
    REFUSED = "refused"


@dataclass(frozen=True)
class Choice:
    """An answer, with the account that it is about, or those to choose from."""

    answer: Answer
    account: LinkedAccount | None = None
    candidates: tuple[LinkedAccount, ...] = ()


def choose(accounts: Sequence[LinkedAccount], *, pinned: str | None, username: str | None) -> Choice:
    """Choose among an owner's accounts of one provider.

    The pinned one is used as long as it lives. Once it is gone it is replaced by nobody's guess, not even where one
    account is left. Without a pin a user's own accounts go before those of others, and several are never guessed at:
    one that works may still be the wrong one.
    """
    living = tuple(account for account in accounts if not account.leaving)
    if not living:
        return Choice(Answer.CONNECT)
    if pinned is not None:
        of_pin = [account for account in living if account.account_id == pinned]
        return _of_one(of_pin[0]) if of_pin else Choice(Answer.CHOOSE, candidates=living)
    own = tuple(account for account in living if username is not None and account.username == username)
    candidates = own or living
    return _of_one(candidates[0]) if len(candidates) == 1 else Choice(Answer.CHOOSE, candidates=candidates)


def _of_one(account: LinkedAccount) -> Choice:
    return Choice(Answer.READY if account.usable else Answer.REPAIR, account)
