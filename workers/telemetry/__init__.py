"""How much energy did this device draw, and whose was it?"""
