"""How many watts may this device draw, and what was the limit before?"""
