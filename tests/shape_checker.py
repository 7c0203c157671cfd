"""The type checker of the import hook: beartype, with int accepted where float is written, as type checkers do."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
