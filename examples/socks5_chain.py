"""A port that leads to a service behind two SOCKS5 proxies, one reached through the other."""

from llama import run, socks5, tcp

first = socks5.connect("127.0.0.1:9050")
second = socks5.connect("127.0.0.1:1081", user="john", password="secret", connect=first)

run(tcp.forward("127.0.0.1:8080", connect=second), listen="127.0.0.1:7007")
