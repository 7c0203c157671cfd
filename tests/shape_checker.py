"""The type checker of the import hook: beartype, with int accepted where float is written (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
