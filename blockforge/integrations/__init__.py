"""BlockForge inside other libraries: one file each, imported only by those who use the library."""
