"""The zoo: one YAML a variant."""

from blockforge.one_tree import at_home

at_home(__name__, __file__)
