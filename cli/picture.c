#include "cli/picture.h"

#include <chafa.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "image/codec.h"

static void terminal_size(int *columns, int *rows)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_col == 0) {
        size.ws_col = 64;
        size.ws_row = 32;
    }
    if (*columns <= 0) *columns = size.ws_col > 80 ? 80 : size.ws_col;
    if (*rows <= 0) *rows = size.ws_row > 2 ? size.ws_row - 1 : 24;
}

int picture_show(const char *path, int columns, int rows, struct error *err)
{
    struct pixels p;
    int rc = image_read(&p, NULL, path, err);
    if (rc) return rc;
    terminal_size(&columns, &rows);
    gint width = columns, height = rows;
    chafa_calc_canvas_geometry(p.width, p.height, &width, &height, 0.5f, TRUE, FALSE);

    gchar **environment = g_get_environ();
    ChafaTermInfo *terminal = chafa_term_db_detect(chafa_term_db_get_default(), environment);
    ChafaCanvasMode mode = chafa_term_info_have_seq(terminal, CHAFA_TERM_SEQ_SET_COLOR_FG_DIRECT)
                               ? CHAFA_CANVAS_MODE_TRUECOLOR
                               : CHAFA_CANVAS_MODE_INDEXED_240;
    ChafaSymbolMap *symbols = chafa_symbol_map_new();
    chafa_symbol_map_add_by_tags(symbols, CHAFA_SYMBOL_TAG_BLOCK | CHAFA_SYMBOL_TAG_HALF |
                                              CHAFA_SYMBOL_TAG_SPACE);
    ChafaCanvasConfig *config = chafa_canvas_config_new();
    chafa_canvas_config_set_geometry(config, width, height);
    chafa_canvas_config_set_canvas_mode(config, mode);
    chafa_canvas_config_set_symbol_map(config, symbols);
    ChafaCanvas *canvas = chafa_canvas_new(config);
    chafa_canvas_draw_all_pixels(
        canvas, p.channels == 4 ? CHAFA_PIXEL_RGBA8_UNASSOCIATED : CHAFA_PIXEL_RGB8, p.data,
        p.width, p.height, p.width * p.channels);
    GString *text = chafa_canvas_print(canvas, terminal);
    fwrite(text->str, 1, text->len, stdout);
    putchar('\n');
    g_string_free(text, TRUE);
    chafa_canvas_unref(canvas);
    chafa_canvas_config_unref(config);
    chafa_symbol_map_unref(symbols);
    chafa_term_info_unref(terminal);
    g_strfreev(environment);
    pixels_release(&p);
    return 0;
}
