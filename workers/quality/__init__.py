"""How good are these predictions?"""
