"""Any image-text model of transformers that has no file of ours: its own modules, its own processor, our paged cache."""
