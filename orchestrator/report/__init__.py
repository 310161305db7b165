"""How does a person read it?"""
