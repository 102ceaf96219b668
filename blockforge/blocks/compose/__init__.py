"""Blocks made of blocks: what is written (`written`), the scope it is read in (`frame`), and the program of plain parts
that it becomes where its map is known (`expand`, `program`), with its memory (`memory`) and its module (`module`)."""
