/* job_build.c - the build id that the linker left in this object (ELF note NT_GNU_BUILD_ID). */
#include "job/job_build.h"

#include <elf.h>
#include <link.h>
#include <string.h>

typedef struct {
    uintptr_t address; /* some address inside the object that is looked for */
    uint8_t *id;
} build_search;

static size_t round_up(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

static void read_notes(const uint8_t *note, size_t n_bytes, uint8_t *id)
{
    while (n_bytes >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) head;
        memcpy(&head, note, sizeof(head));
        const size_t name = round_up(head.n_namesz);
        const size_t whole = sizeof(head) + name + round_up(head.n_descsz);
        if (whole > n_bytes) {
            return;
        }
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 &&
            memcmp(note + sizeof(head), "GNU", 4) == 0) {
            memcpy(id, note + sizeof(head) + name,
                   head.n_descsz < RP_BUILD_ID_BYTES ? head.n_descsz : RP_BUILD_ID_BYTES);
        }
        note += whole;
        n_bytes -= whole;
    }
}

static int visit(struct dl_phdr_info *object, size_t size, void *arg)
{
    const build_search *search = arg;
    int mine = 0;

    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        const uintptr_t begin = object->dlpi_addr + part->p_vaddr;
        mine |= part->p_type == PT_LOAD && search->address >= begin &&
                search->address < begin + part->p_memsz;
    }
    for (int i = 0; mine && i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_NOTE) {
            read_notes((const uint8_t *)(object->dlpi_addr + part->p_vaddr), part->p_memsz,
                       search->id);
        }
    }
    return mine;
}

void rp_build_id(uint8_t id[RP_BUILD_ID_BYTES])
{
    memset(id, 0, RP_BUILD_ID_BYTES);
    (void)dl_iterate_phdr(visit, &(build_search){.address = (uintptr_t)&rp_build_id, .id = id});
}
