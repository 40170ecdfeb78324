"""`reid report`: what runs know, as one HTML file that opens anywhere without a network.

`folder` reads what a run folder says, torch-free; `looking` computes distances anew where pictures
and weights are there, into the plain data of `stage`; `selection` chooses what is worth looking at;
`plots`, `album` and `explaining` draw; `page` puts all of it together.
"""
