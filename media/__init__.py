"""Files: uploads, thumbnails, video posters, PDF. Nothing here speaks HTTP."""
