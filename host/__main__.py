"""``python -m deepseek.host`` is ``deepseek-host``."""

from .cli import main

if __name__ == "__main__":
    main()
