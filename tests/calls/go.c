/* A program with the note that Go's linker leaves in its programs, among others; else it does nothing. */

__asm__(".pushsection .note.go.buildid, \"a\", %note\n"
        ".balign 4\n"
        ".long 4, 5, 4\n" /* lengths of what follows, and the kind */
        ".ascii \"Go\\0\\0\"\n"
        ".ascii \"build\"\n"
        ".balign 4\n"
        ".popsection\n");

int main(void)
{
    return 0;
}
