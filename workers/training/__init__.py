"""How is this model built, adapted and trained?"""
