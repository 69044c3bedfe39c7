"""Any image-text model of transformers that has no file of ours: its own modules and processor, our paged cache."""
