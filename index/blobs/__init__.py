"""The bytes of added pictures, named by their content: in a folder, or in an object store.

Which bytes are still needed is for the catalogue to say; nothing here decodes a picture.
"""
